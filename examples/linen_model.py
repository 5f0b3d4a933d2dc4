"""Explain a Flax Linen model: which regions of an image its answer comes from.

python examples/linen_model.py
"""

import flax.linen as nn
import jax

import jaxmoxi as jm


class Net(nn.Module):
    """A convolution, batch normalisation, dropout and a linear layer over 10 classes."""

    @nn.compact
    def __call__(self, images, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(16, (5, 5))(images))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(10)(x.mean((1, 2)))


image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
regions = jm.grid_regions(32, 32, rows=4, cols=4)

net = Net()
for seed in range(2):  # the variables are arguments of the search: the second set compiles nothing
    variables = net.init(jax.random.key(seed), image[None], train=False)
    logits_fn = jm.from_linen(net, variables, train=False)
    v = jm.pixel_value_fn(logits_fn, image, 3, regions, fill="mean")
    print(f"weights {seed}: {jm.greedy_insertion(v, 16).order.tolist()}")
