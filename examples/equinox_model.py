"""Explain an Equinox model: written for one image [3, H, W], with batch normalisation and its state.

    python examples/equinox_model.py

Needs `equinox`.
"""

import equinox as eqx
import jax

import jaxmoxi as jm


class Net(eqx.Module):
    """A convolution, batch normalisation, dropout and a linear layer over 10 classes."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 16, 5, padding=2, key=keys[0])
        self.norm = eqx.nn.BatchNorm(16, axis_name="batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(16, 10, key=keys[1])

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.conv(x), state)
        return self.head(self.dropout(jax.nn.relu(x), key=key).mean((1, 2))), state


photos = jax.random.uniform(jax.random.key(0), (8, 3, 32, 32))
model, state = eqx.nn.make_with_state(Net)(jax.random.key(1))


def train_forward(x, state, key):
    return model(x, state, key)


# Training sees the batch and keeps its statistics in the state, which the adapter takes along.
keys = jax.random.split(jax.random.key(2), 8)
_, state = jax.vmap(train_forward, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))(photos, state, keys)

logits_fn = jm.from_equinox(model, state=state)  # vmapped, in inference mode, fed [3, H, W]
image = photos[0].transpose(1, 2, 0)
v = jm.pixel_value_fn(logits_fn, image, 3, jm.grid_regions(32, 32, rows=4, cols=4), fill="mean")
print("needed most:", jm.greedy_deletion(v, 16).order.tolist())
