"""A classifier as one value: its parameters, the pure functions over them, and how a photo becomes its input."""

from __future__ import annotations

import difflib
import functools
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks import base as inside
from jaxmoxi.models.networks.cnn import InvertedResidualConfig, InvertedResidualNet
from jaxmoxi.models.networks.vit import Tokens, VisionTransformerConfig, ViT
from jaxmoxi.models.preprocess import Preprocessing, crop_photo, preprocess
from jaxmoxi.pytrees import record, static


@record
class Classifier:
    """A loaded image classifier. A pytree: `params` are its leaves, the rest is structure, so a function jitted over
    one classifier serves every other of the same shape.

    params:        the network's parameters, an NNX state.
    config:        the network's shape: `VisionTransformerConfig` or `InvertedResidualConfig`.
    preprocessing: how a photo becomes its input.
    class_names:   K names; a name may list synonyms, separated by commas.
    name:          what to call it in print.
    """

    params: Any
    config: VisionTransformerConfig | InvertedResidualConfig = static()
    preprocessing: Preprocessing = static()
    class_names: tuple[str, ...] = static()
    name: str = static(default="classifier")

    def astype(self, dtype: Any) -> Classifier:
        """The same classifier computing in "bfloat16" or "float32", its final norm and head always in float32.

        In bfloat16 the matrix products of accelerators run several times faster and everything takes half the memory;
        logits and payoffs stay float32, but carry errors of about 1 %: close candidates of a search may change places.
        Raises ValueError for another dtype.
        """
        if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float32):
            raise InputError(f"expected bfloat16 or float32; got {dtype}")
        last = {"norm", "head", "teacher_head"} if isinstance(self.config, VisionTransformerConfig) else {"classifier"}
        flat = nnx.to_flat_state(self.params)
        cast = [(path, leaf if path[0] in last else leaf.replace(leaf[...].astype(dtype))) for path, leaf in flat]
        return Classifier(nnx.from_flat_state(cast), self.config, self.preprocessing, self.class_names, self.name)

    def logits(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        """Class logits, float32[B, K], of preprocessed images float32[B, H, W, 3]. Pure."""
        return self.network()(images)

    def preprocess(self, photo: Any) -> Float[Array, "H W 3"]:
        """A photo (PIL image of any mode, or uint8 array) as the network's input, float32[H, W, 3], normalised."""
        return jnp.asarray(preprocess(photo, self.preprocessing))

    def crop(self, photo: Any) -> np.ndarray:
        """What the network sees of a photo, uint8[H, W, 3]: resized and cropped, not normalised. For pictures."""
        return crop_photo(photo, self.preprocessing)

    def find_class(self, target: str | int) -> int:
        """The index of a class given by index or by name (any synonym, whatever its case).

        Raises ValueError for an index out of range, and for an unknown or ambiguous name, with the nearest names.
        """
        count = len(self.class_names)
        if isinstance(target, int | np.integer) or target.strip().isdigit():
            if not 0 <= int(target) < count:
                raise InputError(f"expected a class index from 0 to {count - 1}; got {target}")
            return int(target)
        wanted = target.strip().lower()
        synonyms = {i: [s.strip().lower() for s in name.split(",")] for i, name in enumerate(self.class_names)}
        exact = [i for i, name in enumerate(self.class_names) if name.lower() == wanted]
        found = exact or [i for i, names in synonyms.items() if wanted in names]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(f"{i} ({self.class_names[i]})" for i in found)
            raise InputError(f"the class name {target!r} is ambiguous: {choices}; give the index")
        everything = [s for names in synonyms.values() for s in names]
        near = difflib.get_close_matches(wanted, everything, n=3, cutoff=0.6)
        hint = (
            f"did you mean {', '.join(map(repr, near))}?" if near else "give a name from model.class_names or an index"
        )
        raise InputError(f"{self.name} has no class {target!r} among its {count}; {hint}")

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of patch tokens; None for a network without tokens."""
        return (self.config.grid, self.config.grid) if isinstance(self.config, VisionTransformerConfig) else None

    def embed_tokens(self, image: Float[Array, "H W 3"]) -> Tokens:
        """The patch tokens of one image, arrays [T, ...], position embedding added (vision transformers only)."""
        self._check_size(image)
        return jax.tree.map(lambda t: t[0], self.network().embed(image[None]))

    def encode_tokens(self, tokens: Tokens, present: Bool[Array, "C N"] | Float[Array, "C N"]) -> Float[Array, "C K"]:
        """Logits from subsets of tokens; those not present leave no trace (vision transformers only).

        Numbers in [0, 1] for `present` are gates: they multiply the attention weights on each token.
        """
        return self.network().encode(tokens, present)

    def features(self, images: Float[Array, "B H W 3"]) -> inside.Features:
        """What the network makes of preprocessed images before it decides (see `Features`): of a CNN the last
        convolution's map, of a vision transformer the patch tokens as the last layer's attention reads them."""
        return inside.features(self.network(), images)

    def classify(self, features: inside.Features) -> Float[Array, "B K"]:
        """Logits from `features`: `classify(features(images))` is `logits(images)`. Differentiable in them."""
        return inside.classify(self.network(), features)

    def scan_attention(self, image: Float[Array, "H W 3"], step: Any, start: Any) -> tuple[Any, Any]:
        """`jax.lax.scan` over the layers' attention: `step(carry, weights float32[heads, N, N]) -> (carry, out)`.

        Row q of the weights says what token q reads, and sums to 1; the class tokens come first, then the patch tokens
        row by row. Only one layer's weights are held at a time. Returns the last carry and the outs, stacked.
        Raises ValueError for a network without tokens and an image of another size.
        """
        if self.token_grid is None:
            raise InputError(f"{self.name} has no attention (it is not a vision transformer)")
        self._check_size(image)
        return inside.scan_attention(self.network(), image, step, start)

    def attention_maps(self, image: Float[Array, "H W 3"]) -> Float[Array, "L heads N N"]:
        """The attention weights of every layer and head, float32[L, heads, N, N]; see `scan_attention`."""
        return self.scan_attention(image, lambda carry, weights: (carry, weights), ())[1]

    def network(self) -> Any:
        """The NNX module with these parameters in it."""
        return nnx.merge(_structure(self.config), self.params)

    def _check_size(self, image: Any) -> None:
        size = self.config.image_size
        if image.shape != (size, size, 3):
            raise InputError(
                f"{self.name} takes images [{size}, {size}, 3]; got {list(image.shape)}: "
                "model.preprocess(photo) makes one"
            )


@functools.cache
def _structure(config: VisionTransformerConfig | InvertedResidualConfig) -> Any:
    """The static half of a network, built once for each config."""
    network: Any = ViT if isinstance(config, VisionTransformerConfig) else InvertedResidualNet
    return nnx.split(nnx.eval_shape(lambda: network(config, rngs=nnx.Rngs(0))))[0]


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet-1k class names in index order."""
    lines = resources.files("jaxmoxi.models").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines()
    return tuple(line.split(" ", 1)[1] for line in lines)


def count_params(model: Classifier) -> int:
    """How many numbers the parameters are."""
    return sum(leaf.size for leaf in jax.tree.leaves(model.params))
