"""Explain a classifier of 16-bit grey images, as microscopes and X-ray machines make them.

    python examples/one_channel.py [OUT.png]

Made-up images hold a ring or a disk. The network takes one channel, [B, H, W, 1]; the players are SLIC superpixels of
the grey image; the picture is drawn grey, of the levels that `stretch` names.
"""

import sys

import numpy as np
from training import train

import jaxmoxi as jm

out = sys.argv[1] if len(sys.argv) > 1 else "one_channel.png"
rng = np.random.default_rng(0)


def make(count):
    """Images uint16[count, 32, 32], whether the object is a disk, and its pixels bool[count, 32, 32]."""
    disk = rng.random(count) < 0.5
    y, x = np.mgrid[:32, :32]
    centre = rng.integers(9, 23, (count, 2))
    radius = np.hypot(y - centre[:, :1, None], x - centre[:, 1:, None])
    objects = (radius < 7) & ((radius > 4) | disk[:, None, None])
    levels = 3000 + 5000 * objects + rng.normal(0, 400, objects.shape)
    return levels.clip(0, 65535).astype(np.uint16), disk, radius < 7


def as_model_wants(images):
    """float32[..., 1], about 0 to 1: what the network is trained on, and what is explained."""
    return ((images.astype(np.float32) - 3000) / 5000)[..., None]


images, disk, _ = make(768)
model = train(as_model_wants(images), disk.astype(int))
images, disk, truth = make(40)
print("right answers:", float((model(as_model_wants(images)).argmax(1) == disk).mean()))

which = int(np.flatnonzero(disk)[0])
regions = jm.slic_regions(images[which], num_segments=30)  # uint16[32, 32], as it is
v = jm.pixel_value_fn(model, as_model_wants(images[which]), 1, regions)  # hidden pixels are 0, the background
enough = jm.greedy_insertion(v, jm.count_regions(regions), stop=jm.Stop(probability=0.9))
group = np.isin(regions, enough.order[: int(enough.num_steps)])
print(f"in the object: {truth[which][group].mean():.2f} of the group, {truth[which].mean():.2f} of the image")
jm.plot.explanation(images[which], regions, enough, target="disk", stretch=(1500, 9500)).savefig(out, dpi=100)
