"""Vision transformers (ViT, DeiT) that can be run on some of their tokens.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Touvron et al., "Training data-efficient image
transformers", ICML 2021. Inference only: no dropout.

The forward pass is cut where token removal needs it: `embed` makes the patch tokens of an image, position embedding
added; `encode` runs the encoder on any subset of them. The encoder's layers are stacked and looped over, so that three
of them are compiled (the first, the last, and one in between), whatever their number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import check_tensors

_ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class VisionTransformerConfig:
    """The shape of a vision transformer. Sizes in pixels, positive; `image_size` is a multiple of `patch_size`.

    distilled: a second class token behind the first (DeiT's distillation token).
    teacher:   a second head reads it, and the logits are the mean of both heads.
    """

    image_size: int = 224
    patch_size: int = 16
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    num_classes: int = 1000
    norm_eps: float = 1e-12
    qkv_bias: bool = True
    activation: str = "gelu"
    distilled: bool = False
    teacher: bool = False

    def __post_init__(self):
        for name in ("image_size", "patch_size", "hidden_size", "num_layers", "num_heads", "mlp_dim", "num_classes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {value!r}")
        if self.image_size % self.patch_size:
            raise InputError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise InputError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.activation not in _ACTIVATIONS:
            raise InputError(f"expected an activation of {', '.join(_ACTIVATIONS)}; got {self.activation!r}")
        if self.teacher and not self.distilled:
            raise InputError("teacher=True needs the distillation token of distilled=True")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_prefix(self) -> int:
        """Tokens that are always there: the class token, and the distillation token if there is one."""
        return 2 if self.distilled else 1


# Which tokens are there. Gates in place of truths multiply the attention weights: 0 is absent, 1 present.
Present = Bool[Array, "B N"] | Float[Array, "B N"]


def _attention(scores: Float[Array, "B Q N"], present: Present) -> Float[Array, "B Q N"]:
    """Attention weights in float32, none on absent tokens."""
    if present.dtype != bool:
        scores = scores.astype(jnp.float32)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))) * present[:, None, :]
        return weights / jnp.sum(weights, axis=-1, keepdims=True)
    shown = jnp.where(present[:, None, :], scores.astype(jnp.float32), -jnp.inf)
    return jax.nn.softmax(shown, axis=-1)


class Block(nnx.Module):
    """One pre-norm encoder layer."""

    def __init__(self, config: VisionTransformerConfig, *, rngs: nnx.Rngs):
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.activation = config.activation
        self.norm1 = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, use_bias=config.qkv_bias, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.fc1 = nnx.Linear(width, config.mlp_dim, rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp_dim, width, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"], present: Present) -> Float[Array, "B N D"]:
        return self.finish(x, self.attend(self.project(x), present))

    def project(self, x: Float[Array, "*B N D"]) -> Float[Array, "*B N D3"]:
        """Queries, keys and values of every token, side by side."""
        return self.qkv(self.norm1(x))

    def attend(self, qkv: Float[Array, "B N D3"], present: Present) -> Float[Array, "B N D"]:
        """Multi-head attention in which absent tokens are read by nobody.

        Head by head: XLA's CPU backend runs one batched product over [B] five times faster than the same product over
        [B, heads] with the heads next to the width (197 tokens, 3 heads: 9 ms against 50 ms for 16 rows).
        """
        query, key, value = jnp.split(qkv, 3, axis=-1)
        width = query.shape[-1]
        head = width // self.num_heads
        query = query * jnp.asarray(head**-0.5, query.dtype)
        outputs = []
        for start in range(0, width, head):
            part = slice(start, start + head)
            scores = jnp.einsum("bqd,bkd->bqk", query[..., part], key[..., part])
            weights = _attention(scores, present).astype(value.dtype)
            outputs.append(jnp.einsum("bqk,bkd->bqd", weights, value[..., part]))
        return jnp.concatenate(outputs, axis=-1)

    def read(self, x: Float[Array, "B N D"], present: Present, count: int) -> Float[Array, "B Q D"]:
        """The layer's output at its first `count` tokens alone.

        Their queries meet no keys and values but the tokens themselves: q . (K x) = (K^T q) . x, and the mean of V x is
        V applied to the mean of x. (A bias of the keys adds one number to all scores of a query: no difference.) So
        nothing is projected but those few tokens.
        """
        return self.read_normed(x[:, :count], self.norm1(x), present)

    def read_normed(
        self, x: Float[Array, "B Q D"], normed: Float[Array, "B N D"], present: Present
    ) -> Float[Array, "B Q D"]:
        """`read` from the first tokens as they are and all tokens after the layer's first norm."""
        count, width = x.shape[1:]
        by_head = (width, 3, self.num_heads, width // self.num_heads)
        kernel = self.qkv.kernel[...].reshape(by_head)
        query = jnp.einsum("bqw,whd->bqhd", normed[:, :count], kernel[:, 0])
        mean_bias = jnp.zeros(by_head[2:], x.dtype)
        if self.qkv.bias is not None:
            bias = self.qkv.bias[...].reshape(by_head[1:])
            query, mean_bias = query + bias[0], bias[2]
        query = jnp.einsum("bqhd,whd->bqhw", query * jnp.asarray(by_head[-1] ** -0.5, x.dtype), kernel[:, 1])
        query = query.reshape(len(x), -1, width)
        weights = _attention(jnp.einsum("bqw,bnw->bqn", query, normed), present).astype(x.dtype)
        means = jnp.einsum("bqn,bnw->bqw", weights, normed)
        means = means.reshape(len(x), count, self.num_heads, width)
        attended = jnp.einsum("bqhw,whd->bqhd", means, kernel[:, 2]) + mean_bias
        return self.finish(x, attended.reshape(len(x), count, width))

    def finish(self, x: Float[Array, "B Q D"], attended: Float[Array, "B Q D"]) -> Float[Array, "B Q D"]:
        """The rest of the layer: both residual sums and the perceptron."""
        x = x + self.proj(attended)
        return x + self.fc2(_ACTIVATIONS[self.activation](self.fc1(self.norm2(x))))


class Tokens(NamedTuple):
    """Patch tokens as they enter the encoder. All of it depends on the image alone, so it is computed once for all of
    its coalitions.

    x:   [..., D], patch embedding + position embedding.
    qkv: [..., 3D], the first layer's queries, keys and values.
    """

    x: Float[Array, "*B D"]
    qkv: Float[Array, "*B D3"]


class ViT(nnx.Module):
    """A vision transformer with a linear head on its class token."""

    def __init__(self, config: VisionTransformerConfig, *, rngs: nnx.Rngs):
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        init = nnx.initializers.truncated_normal(0.02)
        self.patch = nnx.Linear(patch * patch * 3, width, rngs=rngs)
        self.prefix = nnx.Param(init(rngs.params(), (config.num_prefix, width)))
        self.position = nnx.Param(init(rngs.params(), (config.num_prefix + config.grid**2, width)))

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)
        self.norm = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.head = nnx.Linear(width, config.num_classes, rngs=rngs)
        self.teacher_head = nnx.Linear(width, config.num_classes, rngs=rngs) if config.teacher else None

    def embed(self, images: Float[Array, "B H W 3"]) -> Tokens:
        """The patch tokens of each image, row by row, position embedding added; see `Tokens`."""
        batch, grid, patch = images.shape[0], self.config.grid, self.config.patch_size
        images = images.astype(self.patch.kernel.dtype)
        patches = images.reshape(batch, grid, patch, grid, patch, 3).swapaxes(2, 3)
        x = self.patch(patches.reshape(batch, grid * grid, patch * patch * 3))
        x = x + self.position[...][self.config.num_prefix :]
        return Tokens(x, self.layer(0).project(x))

    def encode(self, tokens: Tokens, present: Present) -> Float[Array, "B K"]:
        """Logits from any subset of an image's tokens; those not `present` leave no trace.

        tokens: arrays [B, N, ...], N at most the image's T. present: bool[B, N], or float32[B, N] in [0, 1]: gates,
        which multiply every attention weight on a token (0 and 1 are False and True), differentiable at both ends.
        """
        x, present = self.before_last(tokens, present)
        return self.decide(self.layer(self.config.num_layers - 1).read(x, present, self.config.num_prefix))

    def before_last(
        self, tokens: Tokens, present: Present
    ) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"] | Float[Array, "B M"]]:
        """All tokens as they enter the last layer, the class tokens in front, and which of them are there."""
        batch, count, depth = len(present), self.config.num_prefix, self.config.num_layers
        first = self.layer(0)
        prefix = self.prefix[...] + self.position[...][:count]
        prefix = Tokens(prefix, first.project(prefix))
        x, qkv = jax.tree.map(
            lambda p, t: jnp.concatenate([jnp.broadcast_to(p, (batch, *p.shape)), t], axis=1), prefix, tokens
        )
        present = jnp.concatenate([jnp.ones((batch, count), present.dtype), present], axis=1)
        # The first layer's projections came with the tokens; of the last layer only the class tokens' rows are read.
        if depth > 1:
            x = first.finish(x, first.attend(qkv, present))
            # A gradient keeps the products with weights and computes the rest of a layer again: attention and
            # activations cost less than to write and read them (ViT-Tiny on two cores: a fifth of the time).
            keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            layer = jax.checkpoint(lambda i, x: self.layer(i)(x, present), prevent_cse=False, policy=keep)
            x = jax.lax.fori_loop(1, depth - 1, layer, x)
        return x, present

    def decide(self, x: Float[Array, "B Q D"]) -> Float[Array, "B K"]:
        """Logits from the class tokens as they leave the last layer."""
        x = self.norm(x.astype(self.head.kernel.dtype))
        logits = self.head(x[:, 0])
        return logits if self.teacher_head is None else (logits + self.teacher_head(x[:, 1])) / 2

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        """Logits of whole images."""
        tokens = self.embed(images)
        return self.encode(tokens, jnp.ones(tokens.x.shape[:2], bool))

    def layer(self, index: Any) -> Block:
        """One of the stacked layers; the index may be traced."""
        block, layers = nnx.split(self.blocks)
        return nnx.merge(block, jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), layers))


Naming = Literal["vit", "deit", "timm"]

# What each naming calls a layer's tensors: (ours, theirs). Hugging Face keeps query, key and value apart.
_HUGGINGFACE_LAYER = {
    "norm1": "layernorm_before",
    "proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_TIMM_LAYER = {"norm1": "norm1", "proj": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def detect_naming(tensors: Mapping[str, Any]) -> Naming:
    """Which framework's names a checkpoint uses: Hugging Face's ViT or DeiT, or timm's."""
    for name, sign in (
        ("vit", "vit.embeddings.cls_token"),
        ("deit", "deit.embeddings.cls_token"),
        ("timm", "cls_token"),
    ):
        if sign in tensors:
            return name  # type: ignore[return-value]
    raise InputError(
        "expected a vision transformer's tensors in the names of Hugging Face (vit.embeddings.cls_token, "
        f"deit.embeddings.cls_token, ...) or timm (cls_token, ...); got {', '.join(sorted(tensors)[:4])}, ..."
    )


def expected_tensors(config: VisionTransformerConfig, naming: Naming) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this naming must hold, with its shape (PyTorch's layouts)."""
    return {name: shape for name, shape, _ in _table(config, naming)}


def _table(config: VisionTransformerConfig, naming: Naming) -> list[tuple[str, tuple[int, ...], tuple[str, ...]]]:
    """(their name, their shape, our slot) of every tensor."""
    width, mlp, classes = config.hidden_size, config.mlp_dim, config.num_classes
    tokens = config.num_prefix + config.grid**2
    rows: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = []

    def linear(theirs: str, slot: tuple[str, ...], fan_out: int, fan_in: int, bias: bool = True) -> None:
        rows.append((f"{theirs}.weight", (fan_out, fan_in), (*slot, "kernel")))
        if bias:
            rows.append((f"{theirs}.bias", (fan_out,), (*slot, "bias")))

    def norm(theirs: str, slot: tuple[str, ...]) -> None:
        rows.append((f"{theirs}.weight", (width,), (*slot, "scale")))
        rows.append((f"{theirs}.bias", (width,), (*slot, "bias")))

    timm = naming == "timm"
    root = "" if timm else f"{naming}.embeddings."
    rows.append((f"{root}cls_token", (1, 1, width), ("cls",)))
    if config.distilled:
        rows.append((f"{root}dist_token" if timm else f"{root}distillation_token", (1, 1, width), ("dist",)))
    rows.append((f"{root}pos_embed" if timm else f"{root}position_embeddings", (1, tokens, width), ("position",)))
    patch = "patch_embed.proj" if timm else f"{root}patch_embeddings.projection"
    rows.append((f"{patch}.weight", (width, 3, config.patch_size, config.patch_size), ("patch", "kernel")))
    rows.append((f"{patch}.bias", (width,), ("patch", "bias")))
    for i in range(config.num_layers):
        layer = f"blocks.{i}" if timm else f"{naming}.encoder.layer.{i}"
        if timm:
            linear(f"{layer}.attn.qkv", (str(i), "qkv"), 3 * width, width, config.qkv_bias)
        else:
            for part in ("query", "key", "value"):
                linear(f"{layer}.attention.attention.{part}", (str(i), part), width, width, config.qkv_bias)
        names = _TIMM_LAYER if timm else _HUGGINGFACE_LAYER
        norm(f"{layer}.{names['norm1']}", (str(i), "norm1"))
        norm(f"{layer}.{names['norm2']}", (str(i), "norm2"))
        linear(f"{layer}.{names['proj']}", (str(i), "proj"), width, width)
        linear(f"{layer}.{names['fc1']}", (str(i), "fc1"), mlp, width)
        linear(f"{layer}.{names['fc2']}", (str(i), "fc2"), width, mlp)
    norm("norm" if timm else f"{naming}.layernorm", ("norm",))
    if timm:
        heads = ("head", "head_dist")
    else:
        heads = ("cls_classifier", "distillation_classifier") if config.teacher else ("classifier", "")
    linear(heads[0], ("head",), classes, width)
    if config.teacher:
        linear(heads[1], ("teacher_head",), classes, width)
    return rows


def from_tensors(config: VisionTransformerConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> Any:
    """The parameters of a `ViT`, as an NNX state, from a checkpoint's tensors.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    naming = detect_naming(tensors)
    check_tensors(expected_tensors(config, naming), tensors, source)
    slots = {slot: np.asarray(tensors[name], np.float32) for name, _, slot in _table(config, naming)}

    def layer(i: int, module: str, leaf: str) -> np.ndarray:
        if module == "qkv" and naming != "timm":
            return np.concatenate([slots[str(i), part, leaf] for part in ("query", "key", "value")])
        return slots[str(i), module, leaf]

    def convert(path: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
        if path[0] == "blocks":
            array = np.stack([layer(i, *path[1:]) for i in range(config.num_layers)])
            return array.swapaxes(1, 2) if path[-1] == "kernel" else array
        if path == ("prefix",):
            return np.concatenate([slots[k][0] for k in (("cls",), ("dist",)) if k in slots])
        if path == ("patch", "kernel"):  # [D, 3, p, p] -> [p * p * 3, D], the order in which `embed` flattens
            return slots[path].transpose(2, 3, 1, 0).reshape(shape)
        array = slots[path]
        return array[0] if path == ("position",) else array.T if path[-1] == "kernel" else array

    abstract = nnx.state(nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0))), nnx.Param)
    flat = nnx.to_flat_state(abstract)
    return nnx.from_flat_state([(path, leaf.replace(jnp.asarray(convert(path, leaf.shape)))) for path, leaf in flat])
