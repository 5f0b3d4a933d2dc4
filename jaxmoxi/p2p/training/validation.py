"""How a model does on images that it is not trained on, between the epochs of its training."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxmoxi.p2p.data.example import Batch, Batches
from jaxmoxi.p2p.inference.batches import check_finite
from jaxmoxi.p2p.inference.predict import predict
from jaxmoxi.p2p.masking import classify_shown, pixel_mask
from jaxmoxi.p2p.model import P2P
from jaxmoxi.p2p.processes import Team
from jaxmoxi.p2p.training.feed import check_batch, iterate


class StoppedError(Exception):
    """A validation that was asked to stop."""


def validate(
    model: P2P,
    loader: Batches,
    *,
    certainty: float = 0.95,
    select: bool = True,
    mesh: Mesh | None = None,
    should_stop: Callable[[], bool] | None = None,
    team: Team = Team(),  # noqa: B008
) -> dict[str, float]:
    """Accuracy, hard share and threshold, as means over the images of a loader's batches, all in [0, 1].

    select: False classifies the whole images; the share and the threshold are then 1.
    mesh:   of this process's devices.
    team:   the processes that share the images. `loader` is this one's part of them; the means are over all parts.
    Raises StoppedError, in all processes, where `should_stop` answers True in one.
    """
    asked = should_stop or (lambda: False)
    sums = np.zeros(4)  # float64: correct, share, threshold, images
    ready = iter(iterate(loader, 0, loader.steps_per_epoch))
    for step in range(team.largest(loader.steps_per_epoch)):
        if team.stops(asked):
            raise StoppedError
        with team.agreeing():
            if (batch := next(ready, None)) is None:  # another process has a batch more
                continue
            check_batch(batch, model.config, step=step + 1, first=not select, where="validation")
            sums += _sums(model, batch, certainty if select else None, mesh)
    *means, count = team.total(sums)
    return {name: float(x / count) for name, x in zip(("accuracy", "hard_share", "threshold"), means, strict=True)}


def _sums(model: P2P, batch: Batch, certainty: float | None, mesh: Mesh | None) -> Float[np.ndarray, "4"]:
    """Correct answers, shares, thresholds and images of a batch, summed."""
    size = len(batch.images)
    if certainty is None:
        check_finite(answer := _whole(model, batch.images), "classifier")
        classes, share, threshold = jnp.argmax(answer, -1), np.ones(size), np.ones(size)
    elif model.config.masking != "groups":
        answer, shown = _through_pixels(model, batch.images)
        check_finite(answer, "model")
        classes, share = jnp.argmax(answer, -1), np.asarray(shown)
        threshold = np.full(size, model.config.threshold)
    else:
        out = predict(model, batch.images, batch.regions, certainty=certainty, batch_size=size, mesh=mesh)
        classes, share, threshold = out.classes, out.pixel_mask.mean((1, 2)), out.threshold
    correct = np.asarray(classes) == np.asarray(batch.labels)
    return np.array([np.sum(x, dtype=np.float64) for x in map(np.asarray, (correct, share, threshold))] + [size])


@jax.jit
def _whole(model: P2P, images: Array) -> Float[Array, "B K"]:
    return model.modules()[1](model.normalize(images))


@jax.jit
def _through_pixels(model: P2P, images: Array) -> tuple[Float[Array, "B K"], Float[Array, "B"]]:
    """The answer of a model whose masks are over pixels, and what share of them it sees."""
    images = model.normalize(images)
    mask = pixel_mask(model, images)
    return classify_shown(model, images, mask), jnp.mean(mask, axis=(1, 2))
