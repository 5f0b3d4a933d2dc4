"""Explain a photo: which regions are enough for the classifier's answer, and which can it not do without?

    python examples/explain_photo.py [PHOTO] [OUT.png]

With the `demo` extra: EfficientNet-Lite0 on a bundled photo of a cup of coffee, 7 x 7 regions, in about half a minute.
"""

import sys

import jax.numpy as jnp
import numpy as np
import skimage.data
from PIL import Image

import jaxmoxi as jm

photo = Image.open(sys.argv[1]) if len(sys.argv) > 1 else skimage.data.coffee()
out = sys.argv[2] if len(sys.argv) > 2 else "explained.png"

model = jm.models.demo()  # or jm.models.load("path/to/a/checkpoint/folder")
image = model.preprocess(photo)
target = int(jnp.argmax(model.logits(image[None])[0]))

regions = jm.grid_regions(*image.shape[:2], rows=7, cols=7)
v = jm.pixel_value_fn(model.logits, image, target, regions)

enough = jm.greedy_insertion(v, 49, stop=jm.Stop(flip=True))
needed = jm.greedy_deletion(v, 49, stop=jm.Stop(flip=True))
for name, result in (("enough", enough), ("needed", needed)):
    steps = int(result.num_steps)
    print(
        f"{name}: regions {np.asarray(result.order[:steps]).tolist()} after {int(result.num_evaluations)} evaluations"
    )

jm.plot.heatmap(model.crop(photo), regions, enough).savefig(out, dpi=150)
print(f"{model.class_names[target]}: {out}")
