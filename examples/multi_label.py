"""Explain a multi-label classifier: each label has a probability of its own, and a place of its own.

    python examples/multi_label.py [OUT.png]

Made-up images hold any of three shapes of a colour each: a red, a green and a blue square. With link="sigmoid" a label
is true above 50 %, whatever the others are, so three explanations of one image find three places.
"""

import sys

import numpy as np
from training import train

import jaxmoxi as jm

out = sys.argv[1] if len(sys.argv) > 1 else "multi_label.png"
rng = np.random.default_rng(0)
names = ("red square", "green square", "blue square")


def make(count):
    """Images float32[count, 32, 32, 3], labels bool[count, 3], and each label's cell of a 4 x 4 grid int[count, 3]."""
    images, labels = rng.normal(0, 0.2, (count, 32, 32, 3)).astype(np.float32), rng.random((count, 3)) < 0.5
    cells = np.stack([rng.permutation(16)[:3] for _ in range(count)])
    for image, there, places in zip(images, labels, cells, strict=True):
        for label in np.flatnonzero(there):
            row, column = np.divmod(places[label], 4)
            image[8 * row + 1 : 8 * row + 7, 8 * column + 1 : 8 * column + 7, label] += 1
    return images, labels, cells


images, labels, _ = make(512)
model = train(images, labels)  # images [B, 32, 32, 3] -> logits [B, 3], of labels that do not exclude one another
images, labels, cells = make(40)
print("right answers:", float(((model(images) > 0) == labels).mean()))

regions = jm.grid_regions(32, 32, rows=4, cols=4)
which = np.flatnonzero(labels.all(1))[0]  # an image with all three
found = []
for label, name in enumerate(names):
    v = jm.pixel_value_fn(model, images[which], label, regions, link="sigmoid")
    enough = jm.greedy_insertion(v, 16, stop=jm.Stop(flip=True))  # until the label's probability is above 50 %
    group = np.isin(np.arange(16), enough.order[: int(enough.num_steps)])
    print(f"{name}: enough {np.flatnonzero(group).tolist()}, true place {cells[which, label]}")
    found.append(group)
jm.plot.groups(images[which], regions, np.stack(found), titles=names, stretch=(-0.5, 1.5)).savefig(out, dpi=100)
