"""A classifier as one value: its parameters, the pure functions over them, and how a photo becomes its input."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable
from importlib import resources
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree, Shaped, UInt8

from jaxmoxi.compiling import compiled
from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import State
from jaxmoxi.models.networks.base import (
    Carry,
    ClassifierNetwork,
    Features,
    NetworkConfig,
    Out,
    TokenLayout,
    image_shape,
)
from jaxmoxi.models.networks.registry import family_of
from jaxmoxi.models.preprocess import Photo, Preprocessing, crop_photo, preprocess
from jaxmoxi.pytrees import record, static


class Restriction(NamedTuple):
    """Which classes of a network's head a classifier keeps (`jaxmoxi.models.restrict`).

    classes:     the indices of its classes among those of the network's own head.
    class_names: the names of all classes of that head.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]


@record
class Classifier:
    """A loaded image classifier. A pytree: `params` are its leaves, the rest is structure, so a function jitted over
    one classifier serves every other of the same shape.

    params:        the network's parameters, an NNX state.
    config:        the network's shape, which tells its family: `VisionTransformerConfig`, `InvertedResidualConfig`, ...
    preprocessing: how a photo becomes its input.
    class_names:   K names; a name may list synonyms, separated by commas.
    name:          what to call it in print.
    link:          what its logits were trained for: "softmax", one class of K, or "sigmoid", each class for itself.
    restriction:   which of the network's classes the K are; None: all of them.
    """

    in_evaluation: ClassVar[bool] = True  # a network here answers for each row alone: games need not try it

    params: State
    config: NetworkConfig = static()
    preprocessing: Preprocessing = static()
    class_names: tuple[str, ...] = static()
    name: str = static(default="classifier")
    link: Literal["softmax", "sigmoid"] = static(default="softmax")
    restriction: Restriction | None = static(default=None)

    def astype(self, dtype: DTypeLike) -> Classifier:
        """The same classifier computing in "bfloat16" or "float32", its final norm and head always in float32.

        In bfloat16 the matrix products of accelerators run several times faster and everything takes half the memory.
        Logits and payoffs stay float32, but carry errors of about 1 %, so that close candidates of a search may change
        places. Raises ValueError for another dtype.
        """
        if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float32):
            raise InputError(f"expected bfloat16 or float32; got {dtype}")
        kept = family_of(self.config).network.float32_parameters
        flat = nnx.to_flat_state(self.params)
        cast = [(path, leaf if path[0] in kept else leaf.replace(leaf[...].astype(dtype))) for path, leaf in flat]
        return dataclasses.replace(self, params=nnx.from_flat_state(cast))

    @compiled
    def logits(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B K"]:
        """Class logits, float32[B, K], of preprocessed images float32[B, H, W, C]. Pure."""
        return self._kept(self.network()(images))

    def preprocess(self, photo: Photo) -> Float[Array, "H W channels"]:
        """A photo (PIL image of any mode, or uint8 array) as the network's input, float32[H, W, C], normalised.

        C is the network's channels: 3, 1 for a network of greys, or as many as the array has.
        """
        return jnp.asarray(preprocess(photo, self.preprocessing))

    def crop(self, photo: Photo) -> UInt8[np.ndarray, "H W channels"]:
        """What the network sees of a photo, uint8[H, W, C]: resized and cropped, not normalised. For pictures."""
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
    def token_layout(self) -> TokenLayout | None:
        """The grid of patch tokens and the class tokens in front of them; None for a network without tokens."""
        return family_of(self.config).network.token_layout(self.config)

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of patch tokens; None for a network without tokens."""
        layout = self.token_layout
        return None if layout is None else layout.grid

    @compiled
    def embed_tokens(self, image: Float[Array, "H W channels"]) -> PyTree[Shaped[Array, "T ..."]]:
        """The patch tokens of one image, arrays [T, ...], position embedding added.

        Raises ValueError for a network without tokens and an image of another size.
        """
        self._check_size(image)
        return jax.tree.map(lambda t: t[0], self.network().embed(image[None]))

    @compiled
    def encode_tokens(
        self, tokens: PyTree[Shaped[Array, "C N ..."]], present: Bool[Array, "C N"] | Float[Array, "C N"]
    ) -> Float[Array, "C K"]:
        """Logits from subsets of tokens, arrays [C, N, ...]; those not present leave no trace.

        Numbers in [0, 1] for `present` are gates: they multiply the attention weights on each token.
        Raises ValueError for a network without tokens.
        """
        return self._kept(self.network().encode(tokens, present))

    @compiled
    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """What the network makes of preprocessed images before it decides (see `Features`): of a CNN the last
        convolution's maps, of a vision transformer the patch tokens as the last layer's attention reads them."""
        return self.network().features(images)

    @compiled
    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`: `classify(features(images))` is `logits(images)`. Differentiable in them."""
        return self._kept(self.network().classify(features))

    def scan_attention(
        self,
        image: Float[Array, "H W channels"],
        step: Callable[[Carry, Float[Array, "heads N N"]], tuple[Carry, Out]],
        start: Carry,
    ) -> tuple[Carry, Out]:
        """`jax.lax.scan` over the layers' attention: `step(carry, weights float32[heads, N, N]) -> (carry, out)`.

        Row q of the weights says what token q reads, and sums to 1. The class tokens come first, then the patch tokens
        row by row. Only one layer's weights are held at a time. Returns the last carry and the outs, stacked.
        Raises ValueError for a network without tokens and an image of another size.
        """
        if self.token_grid is None:
            raise InputError(f"{self.name} has no attention (it is not a vision transformer)")
        self._check_size(image)
        return self.network().scan_attention(image, step, start)

    @compiled
    def attention_maps(self, image: Float[Array, "H W channels"]) -> Float[Array, "L heads N N"]:
        """The attention weights of every layer and head, float32[L, heads, N, N]; see `scan_attention`."""
        return self.scan_attention(image, lambda carry, weights: (carry, weights), ())[1]

    def network(self) -> ClassifierNetwork:
        """The NNX module with these parameters in it."""
        return nnx.merge(_structure(self.config), self.params)

    def _kept(self, logits: Float[Array, "B N"]) -> Float[Array, "B K"]:
        """The logits of the classes that are kept."""
        return logits if self.restriction is None else logits[:, np.asarray(self.restriction.classes)]

    def _check_size(self, image: Array) -> None:
        shape = image_shape(self.config)
        if image.shape != shape:
            raise InputError(
                f"{self.name} takes images {list(shape)}; got {list(image.shape)}: model.preprocess(photo) makes one"
            )


@functools.cache
def _structure(config: NetworkConfig) -> nnx.GraphDef:
    """The static half of a network, built once for each config."""
    network = family_of(config).network
    blank = nnx.eval_shape(lambda: network(config, rngs=nnx.Rngs(0)))
    blank.eval()  # dropout and batch normalisation of a network that has them do as in evaluation
    return nnx.split(blank)[0]


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet-1k class names in index order."""
    lines = resources.files("jaxmoxi.models").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines()
    return tuple(line.split(" ", 1)[1] for line in lines)
