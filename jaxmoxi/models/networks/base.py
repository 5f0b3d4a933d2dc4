"""What goes on inside a network: the maps it decides by, and what its tokens attend to.

Explanations read these; inference does not, and runs as it did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.vit import ViT


class Features(NamedTuple):
    """A network cut in two where its spatial maps are at their most abstract.

    maps: [B, h, w, C]. Of a CNN: the last convolution's output. Of a vision transformer: its patch tokens, on their
          grid, after the first norm of the last layer; this is what the class token's last attention reads.
    rest: what `classify` needs besides them. Of a CNN nothing; of a vision transformer the class tokens, before and
          after that norm.
    """

    maps: Float[Array, "B h w C"]
    rest: Any = ()


def features(network: Any, images: Float[Array, "B H W 3"]) -> Features:
    """See `Features`. Raises ValueError for images of another size than a vision transformer takes."""
    if not isinstance(network, ViT):
        return Features(network.features(images))
    config = network.config
    if images.shape[1:] != (config.image_size, config.image_size, 3):
        raise InputError(
            f"expected images [B, {config.image_size}, {config.image_size}, 3]; got {list(images.shape)}: "
            "model.preprocess(photo) makes one"
        )
    tokens = network.embed(images)
    x, _ = network.before_last(tokens, jnp.ones(tokens.x.shape[:2], bool))
    normed = network.layer(config.num_layers - 1).norm1(x)
    count = config.num_prefix
    maps = normed[:, count:].reshape(len(images), config.grid, config.grid, config.hidden_size)
    return Features(maps, (x[:, :count], normed[:, :count]))


def classify(network: Any, features: Features) -> Float[Array, "B K"]:
    """Logits from `features`."""
    if not isinstance(network, ViT):
        return network.classify(features.maps)
    x, prefix = features.rest
    patches = features.maps.astype(prefix.dtype).reshape(len(prefix), -1, prefix.shape[-1])
    normed = jnp.concatenate([prefix, patches], axis=1)
    last = network.layer(network.config.num_layers - 1)
    return network.decide(last.read_normed(x, normed, jnp.ones(normed.shape[:2], bool)))


def scan_attention(network: ViT, image: Float[Array, "H W 3"], step: Callable[..., Any], start: Any) -> tuple[Any, Any]:
    """See `Classifier.scan_attention`."""
    config = network.config
    prefix = network.prefix[...] + network.position[...][: config.num_prefix]
    x = jnp.concatenate([prefix, network.embed(image[None]).x[0]])
    head = config.hidden_size // config.num_heads

    def layer(carry: Any, index: Any) -> Any:
        x, kept = carry
        block = network.layer(index)
        qkv = block.project(x).reshape(len(x), 3, config.num_heads, head)
        scores = jnp.einsum("qhd,khd->hqk", qkv[:, 0] * jnp.asarray(head**-0.5, x.dtype), qkv[:, 1])
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
        attended = jnp.einsum("hqk,khd->qhd", weights.astype(x.dtype), qkv[:, 2]).reshape(x.shape)
        kept, out = step(kept, weights)
        return (block.finish(x[None], attended[None])[0], kept), out

    (_, kept), outs = jax.lax.scan(layer, (x, start), jnp.arange(config.num_layers))
    return kept, outs
