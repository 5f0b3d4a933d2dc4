"""A prediction of P2P that is made by hand, for its pictures, and what is asked of every picture."""

import io

import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from jaxmoxi.p2p.inference.predict import Prediction

SIDE, GROUPS, COUNT = 16, 6, 3
PHOTOS = np.random.default_rng(0).integers(100, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
REGIONS = np.arange(4).reshape(2, 2).repeat(8, 0).repeat(8, 1).astype(np.int32)  # groups 4 and 5 have no pixels


def make_prediction(width=2):
    kept = np.zeros((COUNT, GROUPS), bool)
    kept[:, 1] = kept[0, 2] = True
    embeddings = np.zeros((COUNT, GROUPS, width), np.float32)
    if width:
        embeddings[:, [0, 3], 0] = 5.0, 5.1
        embeddings[:, 4:] = 100.0
    return Prediction(
        logits=jnp.log(jnp.asarray([[0.1, 0.9], [0.75, 0.25], [0.02, 0.98]])),
        threshold=jnp.asarray([0.05, 0.3, 1.0]),
        group_probs=jnp.asarray(np.where(kept, 0.8, 0.2), jnp.float32),
        group_mask=jnp.asarray(kept),
        pixel_mask=jnp.asarray(kept[np.arange(COUNT)[:, None, None], REGIONS]),
        num_evaluations=jnp.asarray([1, 2, 3], jnp.int32),
        areas=jnp.asarray(np.tile([0.25] * 4 + [0.0] * 2, (COUNT, 1)), jnp.float32),
        embeddings=jnp.asarray(embeddings),
    )


def save(figure):
    """The saved picture; saving is part of what must work."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def texts_cut_off(figure):
    """What is written and cut off by the edge of the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, box = canvas.get_renderer(), figure.bbox
    cut = []
    for text in figure.findobj(Text):
        extent = text.get_window_extent(renderer)
        across = box.x0 - 1 <= extent.x0 and extent.x1 <= box.x1 + 1
        down = box.y0 - 1 <= extent.y0 and extent.y1 <= box.y1 + 1
        if text.get_text() and not (across and down):
            cut.append(text.get_text())
    return cut
