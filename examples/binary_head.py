"""Explain a classifier with one output, yes or no: where is the lesion, and what speaks against one?

    python examples/binary_head.py [OUT.png]

Made-up images hold a bright spot at a random place, or none; a small network of one logit learns to tell. With
link="sigmoid", target 1 explains "yes" and target 0 "no". The place of the spot is known, so the answer can be checked.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from training import train

import jaxmoxi as jm

out = sys.argv[1] if len(sys.argv) > 1 else "binary_head.png"
rng = np.random.default_rng(0)


def make(count):
    """Images float32[count, 32, 32, 3] of noise, whether a spot is in them, and its place (row, column)."""
    images, yes = rng.normal(0, 0.3, (count, 32, 32, 3)).astype(np.float32), rng.random(count) < 0.5
    places = rng.integers(4, 28, (count, 2))
    y, x = np.mgrid[:32, :32]
    spots = (np.hypot(y - places[:, :1, None], x - places[:, 1:, None]) < 3.5)[..., None]
    return images + 1.2 * spots * yes[:, None, None, None], yes, places


images, yes, _ = make(512)
model = train(images, yes[:, None])  # a Partial over its parameters: images [B, 32, 32, 3] -> logits [B, 1]

regions = jm.grid_regions(32, 32, rows=8, cols=8)
images, yes, places = make(20)
print("right answers:", float(((model(images)[:, 0] > 0) == yes).mean()))

hits = []
for image, place in zip(images[yes], places[yes], strict=True):
    v = jm.pixel_value_fn(model, image, 1, regions, link="sigmoid")
    first = jm.greedy_insertion(v, 64, stop=jm.Stop(size=1))
    row, column = np.unravel_index(int(first.order[0]), (8, 8))
    hits.append(np.hypot(4 * row + 1.5 - place[0], 4 * column + 1.5 - place[1]) < 5)
print(f"the most important region lies on the spot: {np.mean(hits):.2f} of {len(hits)} images")

image, place = images[yes][0], places[yes][0]
v = jm.pixel_value_fn(model, image, 1, regions, link="sigmoid")
enough = jm.greedy_insertion(v, 64, stop=jm.Stop(probability=0.9))
print("enough for yes:", enough.order[: enough.num_steps].tolist(), "spot at", place.tolist())

# The other side of the same logit: what has to be hidden until the answer is no, class 0?
needed = jm.greedy_deletion(v, 64, stop=jm.Stop(flip=True))
no = jm.pixel_value_fn(model, image, 0, regions, link="sigmoid")
shown = ~np.isin(np.arange(64), needed.order[: int(needed.num_steps)])
probability = jax.nn.sigmoid(no(jnp.asarray(shown[None])))[0]
print(f"no without {np.flatnonzero(~shown).tolist()}: probability {float(probability):.2f}")

jm.plot.explanation(
    np.asarray(image), regions, enough, target="a spot", place="above 50 %", stretch=True
).savefig(out, dpi=100)  # fmt: skip
