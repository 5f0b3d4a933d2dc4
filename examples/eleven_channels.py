"""Explain a classifier of images with eleven channels, as satellites make them.

    python examples/eleven_channels.py [OUT.png]

Made-up scenes have fields of five kinds of ground, each with a spectrum of its own; the class is whether one of the
fields is burnt, which two of the eleven bands show, and no visible one. The players are SLIC superpixels over all
bands; the picture maps three bands, which `channels` names, to red, green and blue.
"""

import sys

import numpy as np
from training import train

import jaxmoxi as jm

out = sys.argv[1] if len(sys.argv) > 1 else "eleven_channels.png"
rng = np.random.default_rng(0)
spectra = rng.uniform(0.1, 0.5, (6, 11))  # reflectance of five kinds of ground, and of burnt ground
spectra[5] = spectra[4]
spectra[5, [7, 10]] = spectra[4, [7, 10]] + (-0.3, 0.5)  # near infrared falls, short-wave infrared rises


def make(count):
    """Reflectances float32[count, 32, 32, 11], whether a field is burnt, and which pixels are bool[count, 32, 32]."""
    y, x = np.mgrid[:32, :32]
    seeds = rng.integers(0, 32, (count, 7, 2))
    distance = np.hypot(y - seeds[:, :, :1, None], x - seeds[:, :, 1:, None])
    kinds, burnt = rng.integers(0, 5, (count, 7)), rng.random(count) < 0.5
    kinds[burnt, 0] = 5
    ground = np.take_along_axis(kinds, distance.argmin(1).reshape(count, -1), 1).reshape(count, 32, 32)
    images = spectra[ground] + rng.normal(0, 0.03, (count, 32, 32, 11))
    fire = ground == 5
    return images.astype(np.float32), fire.any((1, 2)), fire


images, burnt, _ = make(512)
model = train(images, burnt.astype(int))
images, burnt, truth = make(40)
print("right answers:", float((model(images).argmax(1) == burnt).mean()))

which = int(np.argmax(truth.sum((1, 2))))
regions = jm.slic_regions(images[which], num_segments=40)  # follows all eleven bands
v = jm.pixel_value_fn(model, images[which], 1, regions, fill="mean")  # the mean of each band
enough = jm.greedy_insertion(v, jm.count_regions(regions), stop=jm.Stop(probability=0.9))
group = np.isin(regions, enough.order[: int(enough.num_steps)])
print(f"burnt: {truth[which][group].mean():.2f} of the group, {truth[which].mean():.2f} of the image")
jm.plot.explanation(
    images[which], regions, enough, target="burnt", channels=(10, 7, 2), stretch=True,
    caption="bands 10, 7 and 2 as red, green and blue",
).savefig(out, dpi=100)  # fmt: skip
