"""The network of the examples whose data are made up: two layers on patches, trained for a second on one core.

from training import train
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class Net(nnx.Module):
    """Features of patches of 4 x 4 pixels, of which the strongest anywhere in the image goes to the head."""

    def __init__(self, channels, num_logits, *, rngs):
        self.first, self.second = nnx.Linear(16 * channels, 16, rngs=rngs), nnx.Linear(16, 16, rngs=rngs)
        self.head = nnx.Linear(16, num_logits, rngs=rngs)

    def __call__(self, images):
        count, height, width, channels = images.shape
        patches = images.reshape(count, height // 4, 4, width // 4, 4, channels).swapaxes(2, 3)
        patches = patches.reshape(count, height * width // 16, 16 * channels)
        return self.head(nnx.relu(self.second(nnx.relu(self.first(patches)))).max(1))


def train(images, labels, *, epochs=40, batch_size=64):
    """Logits of images [B, H, W, C], a pure function with its parameters as leaves (`jax.tree_util.Partial`).

    labels: int[N], classes of which one is true (softmax); bool[N, K], labels each true or not (sigmoid).
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    count = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    structure, weights = nnx.split(Net(images.shape[-1], count, rngs=nnx.Rngs(0)))
    logits = jax.tree_util.Partial(lambda weights, images: nnx.merge(structure, weights)(images))
    optimizer = optax.adam(4e-3)

    @jax.jit
    def step(state, at):
        def loss(weights):
            out, true = logits(weights, images[at]), labels[at]
            if labels.ndim == 2:
                return optax.sigmoid_binary_cross_entropy(out, true).mean()
            return optax.softmax_cross_entropy_with_integer_labels(out, true).mean()

        weights, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(weights), memory)
        return (optax.apply_updates(weights, updates), memory), None

    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(len(images))[: len(images) // batch_size * batch_size] for _ in range(epochs)])
    run = jax.jit(lambda state: jax.lax.scan(step, state, order.reshape(-1, batch_size))[0])
    weights, _ = run((weights, optimizer.init(weights)))
    return jax.tree_util.Partial(logits.func, weights)
