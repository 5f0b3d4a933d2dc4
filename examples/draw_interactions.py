"""Draw which pairs of regions work together in one image, and which repeat each other.

    python examples/draw_interactions.py [OUT.png]

With the `demo` extra: EfficientNet-Lite0 on a bundled photo, every pair of 5 x 5 regions, all others hidden
(self-context) and all others shown (full context).
"""

import sys

import jax.numpy as jnp
import skimage.data

import jaxmoxi as jm

out = sys.argv[1] if len(sys.argv) > 1 else "interactions.png"
photo = skimage.data.chelsea()
model = jm.models.demo()
image = model.preprocess(photo)
target = int(jnp.argmax(model.logits(image[None])[0]))

regions = jm.grid_regions(*image.shape[:2], rows=5, cols=5)
v = jm.pixel_value_fn(model.logits, image, target, regions)

alone = jm.pairwise_interactions(v, 25)
together = jm.pairwise_interactions(v, 25, context=jnp.ones(25, bool))
for name, matrix in (("self-context", alone), ("full context", together)):
    strongest = divmod(int(jnp.argmax(jnp.abs(matrix))), 25)
    print(f"{name}: strongest between regions {strongest}, {float(matrix[strongest]):+.2f} in log-odds")

jm.plot.interactions(model.crop(photo), regions, alone, top=30).savefig(out, dpi=150)
print(f"{model.class_names[target]}: {out}")
