"""Players that are pixels: a convolutional network's coalitions, and superpixels made on the device."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from _common import summary

import jaxmoxi as jm
from _accelerator.forwards import coalitions
from _accelerator.measure import halving, seconds
from _accelerator.run import Run
from _accelerator.subjects import batch_of, random_image, random_resnet, resnet_flops
from jaxmoxi.models.networks.base import sides

_MOST = 6.0  # seconds of the repeats of one row
_SEGMENTS = 100


def measure(run: Run) -> None:
    """Rows: coalitions of the CNN by batch and dtype; SLIC by photos together, on the device and by scikit-image."""
    config, side = run.sizes.pixels
    model = random_resnet(config)
    name = f"{model.name}, {side} x {side} regions"
    image = random_image(model)
    height, width = sides(config.image_size)
    regions = jm.grid_regions(height, width, rows=side, cols=side)
    for dtype, batch in run.sizes.pixel_forwards:

        def once(batch: int, dtype: str = dtype) -> dict[str, Any]:
            v = jm.pixel_value_fn(model.astype(dtype).logits, image, 0, regions)
            return coalitions(run, v, side * side, dtype, None, batch, float(resnet_flops(config)))

        expected = run.expect(10 * batch * resnet_flops(config), dtype)
        run.row(f"{name}, {dtype}, batch {batch}", lambda n=batch, once=once: halving(n, once), expected=expected)
    for count, pixels in run.sizes.slic:
        what = f"SLIC on the device, {_SEGMENTS} segments, {count} photos of {pixels} pixels together"
        run.row(
            what, lambda n=count, p=pixels: halving(n, lambda n: _slic(run, n, p)), expected=run.expect(0, "float32")
        )
    count, pixels = min(run.sizes.slic[0][0], 8), run.sizes.slic[0][1]
    run.row(f"SLIC of scikit-image on the host, {count} photos one by one", lambda: _on_host(run, count, pixels))


def _slic(run: Run, count: int, pixels: int) -> dict[str, Any]:
    photos = jnp.asarray(batch_of(run.subjects.photos, count, pixels))
    times = seconds(lambda: jm.slic_regions(photos, num_segments=_SEGMENTS), repeats=run.sizes.repeats, most=_MOST)
    return {"seconds": summary(times), "rate": count / summary(times)["median"], "unit": "photos/s"}


def _on_host(run: Run, count: int, pixels: int) -> dict[str, Any]:
    photos = batch_of(run.subjects.photos, count, pixels)
    times = seconds(
        lambda: jm.slic_regions(photos, num_segments=_SEGMENTS, backend="skimage"),
        repeats=min(run.sizes.repeats, 2),
        most=_MOST,
    )
    return {"seconds": summary(times), "rate": count / summary(times)["median"], "unit": "photos/s"}
