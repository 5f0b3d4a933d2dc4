"""One game, two libraries: shapiq's exact indices, an approximation and a plot of a value function of jaxmoxi.

    python examples/shapiq_indices.py [OUT.png]

Needs the `shapiq` extra. Nine regions are few enough for every one of the 512 coalitions.
"""

import sys

import jax
import matplotlib.pyplot as plt
import numpy as np
import shapiq

import jaxmoxi as jm

out = sys.argv[1] if len(sys.argv) > 1 else "shapiq.png"


def logits_fn(parameters, images):
    patterns, head = parameters
    x = jax.lax.conv_general_dilated(images, patterns, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(x).max((1, 2)) @ head


keys = jax.random.split(jax.random.key(0), 3)
parameters = (jax.random.normal(keys[0], (5, 5, 3, 16)), jax.random.normal(keys[1], (16, 10)))
image = jax.random.uniform(keys[2], (24, 24, 3))
regions = jm.grid_regions(24, 24, rows=3, cols=3)
v = jm.pixel_value_fn(jax.tree_util.Partial(logits_fn, parameters), image, 3, regions, fill="mean")

game = jm.as_shapiq_game(v, 9)
exact = shapiq.ExactComputer(game)
shapley = exact("SV", order=1).get_n_order_values(1)
print("Shapley values, exact:  ", np.round(shapley, 2).tolist())

sampled = jm.sampled_shapley(jax.random.key(1), v, 9, num_samples=200)
print("ours, sampled:          ", np.asarray(sampled.values, float).round(2).tolist())

kernel = shapiq.KernelSHAP(n=9, random_state=0).approximate(budget=200, game=game)
print("KernelSHAP, 200 of 512: ", np.round(kernel.get_n_order_values(1), 2).tolist())

interactions = exact("k-SII", order=2)
pairs = interactions.get_n_order_values(2)
strongest = np.unravel_index(np.argmax(np.abs(pairs)), pairs.shape)
print(f"strongest interaction:   regions {tuple(map(int, strongest))}, {pairs[strongest]:+.2f} in log-odds")

shapiq.network_plot(interactions, show=False)
plt.savefig(out, dpi=120)
print(f"wrote {out}")
