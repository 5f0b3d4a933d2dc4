"""Networks small enough to be computed by hand, and problems made of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import vit
from jaxmoxi.models.networks.cnn import InvertedResidualConfig, InvertedResidualNet
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.pytrees import record
from support.games import golden_tensor

CONFIG = VisionTransformerConfig(
    image_size=12, patch_size=4, hidden_size=12, num_layers=3, num_heads=3, mlp_dim=16, num_classes=4
)
SHALLOW = dataclasses.replace(CONFIG, num_layers=1)  # compiles fast
IMAGE = jnp.asarray(np.random.default_rng(1).normal(size=(12, 12, 3)), jnp.float32)
GRID = jm.grid_regions(12, 12, rows=3, cols=3)
BLOBS = jm.relabel(np.random.default_rng(5).integers(0, 5, (12, 12)))  # players of unequal size, all over the image


def wrap(config, params):
    return Classifier(
        params=params,
        config=config,
        preprocessing=Preprocessing.from_huggingface({}, config.image_size),
        class_names=tuple("abcd")[: config.num_classes],
        name="tiny",
    )


def vit_model(config=CONFIG, tag="a"):
    naming = "deit" if config.distilled else "vit"
    made = {n: golden_tensor(tag, n, s, 1.5) for n, s in vit.expected_tensors(config, naming).items()}
    return wrap(config, jax.tree.map(jnp.asarray, vit.from_tensors(config, made, source="test")))


@functools.cache
def cnn_model():
    config = InvertedResidualConfig(arch="mobilenet_v2", num_classes=4, image_size=64, width=0.35)
    return wrap(config, nnx.state(InvertedResidualNet(config, rngs=nnx.Rngs(0)), nnx.Param))


@record
class TinyNet:
    """relu(convolution), then a head that is not linear."""

    kernel: jax.Array
    hidden: jax.Array
    out: jax.Array

    def features(self, images):
        return jax.nn.relu(
            jax.lax.conv_general_dilated(
                images, self.kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )

    def classify(self, maps):
        return jnp.tanh(jnp.einsum("bhwc,hwcf->bf", maps, self.hidden)) @ self.out

    def __call__(self, images):
        return self.classify(self.features(images))


def tiny_net():
    rng = np.random.default_rng(3)
    shapes = (3, 3, 3, 5), (6, 6, 5, 7), (7, 4)
    return TinyNet(*(jnp.asarray(0.3 * rng.normal(size=s), jnp.float32) for s in shapes))


def linear_logits(weights, images):
    return jnp.einsum("bhwc,hwck->bk", images, weights)


def square_logits(weights, images):
    return linear_logits(weights, images) ** 2


WEIGHTS = np.random.default_rng(2).normal(size=(12, 12, 3, 4)).astype(np.float32)
LINEAR = jax.tree_util.Partial(linear_logits, jnp.asarray(WEIGHTS))
SQUARE = jax.tree_util.Partial(square_logits, jnp.asarray(0.1 * WEIGHTS))


def make(model, *, regions=GRID, target=2, image=IMAGE, payoff="logit", fill=0.0):
    logits_fn = model.logits if hasattr(model, "logits") else model
    v = jm.pixel_value_fn(logits_fn, image, target, regions, payoff=payoff, fill=fill)
    return attribution.problem(model, image, target, regions, v=v)


def token_problem(model, target=2, image=IMAGE):
    return attribution.problem(model, image, target, GRID, v=jm.token_value_fn(model, image, target))


def mean_over(pixels, regions):
    return np.array([np.asarray(pixels, np.float64)[regions == i].mean() for i in range(int(regions.max()) + 1)])


def between(length, size):
    """The weights of bilinear enlargement from `size` cells to `length` pixels, edges repeated: [length, size]."""
    at = np.clip((np.arange(length) + 0.5) * size / length - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)))
