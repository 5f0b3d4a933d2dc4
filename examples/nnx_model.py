"""Explain a Flax NNX model, one image and then a batch of images inside your own jit.

python examples/nnx_model.py
"""

import jax
from flax import nnx

import jaxmoxi as jm


class Net(nnx.Module):
    """A convolution, batch normalisation, dropout and a linear layer over 10 classes."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv, self.norm = nnx.Conv(3, 16, (5, 5), rngs=rngs), nnx.BatchNorm(16, rngs=rngs)
        self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, images):
        return self.head(self.dropout(nnx.relu(self.norm(self.conv(images)))).mean((1, 2)))


image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
regions = jm.grid_regions(32, 32, rows=4, cols=4)

model = Net(rngs=nnx.Rngs(0))  # in training mode; the adapter takes a copy of it in evaluation mode
logits_fn = jm.from_nnx(model)
v = jm.pixel_value_fn(logits_fn, image, 3, regions, fill="mean")
print("one image:", jm.greedy_insertion(v, 16).order.tolist())

# The whole search inside your own jit, over a batch of images; the model's variables are an argument of it.
images = jax.random.uniform(jax.random.key(1), (5, 32, 32, 3))


@jax.jit
def explain(logits_fn, images):
    def one(image):
        v = jm.pixel_value_fn(logits_fn, image, 3, regions, fill="mean")
        return jm.greedy_insertion(v, 16, stop=jm.Stop(size=4)).order[:4]

    return jax.vmap(one)(images)


print("a batch:  ", explain(logits_fn, images).tolist())
