"""Bring your own model: any pure function from images to logits, here a small Flax NNX network and an Equinox one.

    python examples/own_flax_model.py

Needs `equinox` for its second half (part of the `test` extra).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

import jaxmoxi as jm


class Net(nnx.Module):
    """A convolution and a linear layer over 10 classes."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 16, (5, 5), rngs=rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, images):
        return self.head(nnx.relu(self.conv(images)).mean((1, 2)))


image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
regions = jm.grid_regions(32, 32, rows=4, cols=4)

# Split once: the structure is code, the state is an argument, so other weights compile nothing anew.
structure, state = nnx.split(Net(rngs=nnx.Rngs(0)))


def logits_fn(state, images):
    return nnx.merge(structure, state)(images)


v = jm.pixel_value_fn(jax.tree_util.Partial(logits_fn, state), image, 3, regions, fill="mean")
print("nnx:    ", jm.greedy_insertion(v, 16).order.tolist())

# The whole search inside your own jit, over a batch of images.
images = jax.random.uniform(jax.random.key(1), (5, 32, 32, 3))


@jax.jit
def explain(state, images):
    def one(image):
        v = jm.pixel_value_fn(jax.tree_util.Partial(logits_fn, state), image, 3, regions, fill="mean")
        return jm.greedy_insertion(v, 16, stop=jm.Stop(size=4)).order[:4]

    return jax.vmap(one)(images)


print("vmapped:", explain(state, images).tolist())


class Linear(eqx.Module):
    """Equinox modules are pytrees already: pass them as they are."""

    weights: jax.Array

    def __call__(self, images):
        return jnp.tanh(images.reshape(len(images), -1) @ self.weights)


network = Linear(jax.random.normal(jax.random.key(2), (32 * 32 * 3, 10)) * 0.05)
v = jm.pixel_value_fn(network, image, 3, regions)
print("equinox:", jm.greedy_deletion(v, 16).order.tolist())
