"""What insertion and deletion curves say: areas, readings at a share, the smallest group that flips, means over images.

A curve comes from `jaxmoxi.insertion_curve` or `jaxmoxi.deletion_curve`. Several curves come together from
`jaxmoxi.curve_readouts`, as a `Readout` whose arrays end with the axis of all sizes. Insertion goes from nothing
visible (size 0) to the whole image (size P), and higher is better. Deletion goes from the whole image to nothing, and
lower is better.
Sources: Petsiuk, Das and Saenko, "RISE", BMVC 2018 (the areas); Sumiyasu, Kawamoto and Kera, CVPR 2024 (accuracy
against the share of patches, and the smallest group); Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, as_game
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.metrics.registry import DIRECTIONS, Column, Explained, Line, Metric, Number, Panels, register
from jaxmoxi.moxi.curves import area_under, curve_readouts
from jaxmoxi.regions.label_maps import region_sizes
from jaxmoxi.types import AnyArray, Curve, Readout

Quantity = Literal["probabilities", "leads", "values"]


class Confidence(NamedTuple):
    """The largest probability along a curve.

    probability: float32[] in [0, 1].
    size:        int32[], the smallest group that reaches it, 0 .. P.
    """

    probability: Float[Array, "*batch"]
    size: Int[Array, "*batch"]


class CurveBand(NamedTuple):
    """A mean curve over images and how sure it is, float32[P+1] each: `low` <= `mean` <= `high`, pointwise."""

    mean: Float[Array, "P1"]
    low: Float[Array, "P1"]
    high: Float[Array, "P1"]


def probability_area(curve: Curve | Readout) -> Float[Array, "*batch"]:
    """The trapezoid area under the probability over the share inserted (deleted), in [0, 1]; float32[], in [0, 1].

    The share is that of the curve: of the players, or of the pixels (`Curve.share`); of a `Readout`, of the players.
    Of an insertion curve higher is better, of a deletion curve lower. Raises ValueError for a curve without
    probabilities.
    """
    probabilities = _quantity(curve, "probabilities")
    shares = _shares(curve)
    return area_under(probabilities, np.linspace(0, 1, probabilities.shape[-1]) if shares is None else shares)


def curve_at(
    curve: Curve | Readout, share: float | Sequence[float], *, quantity: Quantity = "probabilities"
) -> Shaped[Array, "*readings"]:
    """A curve's reading where a share has been inserted or deleted; `share` a sequence reads several.

    share:    in [0, 1], of the players, or of the pixels for a curve over them (`Curve.share`); 0 is the start of the
              curve, 1 its end. Of P players, the first floor(share * P + 1/2); of pixels, as many of the first players
              as have at least half of theirs within the share.
    quantity: "probabilities" (float32), "leads" (bool; their mean over images is the accuracy) or "values", the payoff
              (float32). Of an insertion curve higher is better, of a deletion curve lower.

    Raises ValueError for another share or quantity, and for a quantity that the curve does not have.
    """
    asked = np.asarray(share, np.float64)
    if asked.ndim > 1 or not ((asked >= 0) & (asked <= 1)).all():
        raise InputError(f"expected a share in [0, 1], or several; got {share}")
    readings, shares = _quantity(curve, quantity), _shares(curve)
    if shares is None:
        # The small addition keeps 0.3 of 5, typed in decimals, from falling below one and a half.
        sizes = np.floor(asked * (readings.shape[-1] - 1) + 0.5 + 1e-6).astype(np.int32)
        return readings[..., sizes]
    middles = (shares[..., 1:] + shares[..., :-1]) / 2
    within = middles[..., None, :] <= jnp.asarray(asked.reshape(-1), jnp.float32)[:, None] + 1e-6
    found = jnp.take_along_axis(readings, jnp.sum(within, axis=-1), axis=-1)
    return found.reshape(*readings.shape[:-1], *asked.shape)


def smallest_flip(
    curve: Curve | Readout, *, insertion: bool = True, sizes: Sequence[int] | None = None
) -> Int[Array, "*batch"]:
    """The size of the smallest group at the head of an order that flips the prediction, int32[]; lower is better.

    insertion: the curve is an insertion curve, and the group is the first with which the class is the top class; False:
               a deletion curve, and the first without which it is not. The group itself is `order[:size]`.
    sizes:     the group size of each reading, ascending, as `curve_readouts` took them; None means all of 0 .. P.

    0 where the start has already flipped (nothing visible, or nothing hidden). One more than the largest size where no
    group flips the prediction, P + 1 for a whole curve, so that comparisons and medians over images rank it worst.
    Raises ValueError for a curve that cannot tell who leads, and for sizes that are not one for each reading.
    """
    flipped = _quantity(curve, "leads") == insertion
    count = flipped.shape[-1]
    known = np.arange(count) if sizes is None else np.asarray(sizes)
    if known.shape != (count,):
        raise InputError(f"expected a size for each of the {count} readings; got {known.size} sizes")
    place = jnp.where(jnp.any(flipped, axis=-1), jnp.argmax(flipped, axis=-1), count)
    return jnp.asarray(np.append(known, known[-1] + 1), jnp.int32)[place]


def highest_confidence(curve: Curve | Readout) -> Confidence:
    """The largest probability along an insertion curve, and the smallest group that reaches it.

    Higher probability is better, and of two curves with the same probability the one that reaches it with the smaller
    group. Parts of an image can convince the model more than the whole image, whose probability ends the curve and so
    is the least that this can be. NaN where a probability is NaN.
    Raises ValueError for a curve without probabilities.
    """
    probabilities = _quantity(curve, "probabilities")
    return Confidence(jnp.max(probabilities, axis=-1), jnp.argmax(probabilities, axis=-1).astype(jnp.int32))


def aggregate_curves(
    curves: Shaped[AnyArray, "_ _"] | Sequence[Shaped[AnyArray, "_ _"]], *, level: float = 0.95
) -> CurveBand:
    """The mean over images, with the normal confidence band: mean ± z s / sqrt(B), s the sample standard deviation.

    curves: [B, P+1] numbers, or bools such as `leads`, whose mean is the accuracy; or several such arrays of different
            images (the shards of a study), which count as one.
    level:  of confidence at each size, in (0, 1).

    Of insertion curves higher is better, of deletion curves lower. The band of an accuracy may leave [0, 1]; that of
    `bootstrap_curves` does not. A single image has no spread: its band is NaN. Goes under `jit`.
    Raises ValueError for shapes that do not fit, no image at all, or another level.
    """
    rows = _rows(curves)
    _check_level(level)
    mean = jnp.mean(rows, axis=0)
    half = NormalDist().inv_cdf((1 + level) / 2) * jnp.std(rows, axis=0, ddof=1) / np.sqrt(len(rows))
    return CurveBand(mean, mean - half, mean + half)


def bootstrap_curves(
    key: RandomKey,
    curves: Shaped[AnyArray, "_ _"] | Sequence[Shaped[AnyArray, "_ _"]],
    *,
    level: float = 0.95,
    num_samples: int = 1000,
) -> CurveBand:
    """The mean over images, with a bootstrap band: percentiles of the means of images drawn with replacement.

    key:         a JAX random key; the same key gives the same band.
    num_samples: draws of B images, at least 1.

    The percentiles make no assumption of normality and stay within the data's range; the band is widened where it would
    not include the mean. Otherwise as `aggregate_curves`, and a single image's band is its own curve.
    """
    rows = _rows(curves)
    _check_level(level)
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1; got {num_samples}")
    count = len(rows)

    def resampled(key: RandomKey) -> Float[Array, "P1"]:
        drawn = jnp.zeros(count).at[jax.random.randint(key, (count,), 0, count)].add(1)
        return jnp.matmul(drawn, rows, precision="highest") / count

    means = jax.lax.map(resampled, jax.random.split(key, num_samples), batch_size=64)
    tail = (1 - level) / 2
    low, high = jnp.quantile(means, jnp.array([tail, 1 - tail]), axis=0)
    mean = jnp.mean(rows, axis=0)
    return CurveBand(mean, jnp.minimum(low, mean), jnp.maximum(high, mean))


def _quantity(curve: Curve | Readout, name: str) -> Shaped[Array, "*batch P1"]:
    if name not in ("probabilities", "leads", "values"):
        raise InputError(f"expected a quantity of 'probabilities', 'leads' or 'values'; got {name!r}")
    found = getattr(curve, name)
    if found is None:
        raise InputError(
            f"this curve has no {name}, as its value function cannot tell them; make it with pixel_value_fn or "
            "token_value_fn, or give the value function a `readout` (see jaxmoxi.games.base)"
        )
    return jnp.asarray(found)


def _shares(curve: Curve | Readout) -> Float[Array, "*batch P1"] | None:
    """Where a curve's readings stand; None where they are equally spaced."""
    return curve.shares if isinstance(curve, Curve) and curve.share == "pixels" else None


def _rows(curves: AnyArray | Sequence[AnyArray]) -> Float[Array, "B P1"]:
    parts = [curves] if isinstance(curves, AnyArray) else list(curves)
    shapes = [jnp.shape(part) for part in parts]
    if not parts or any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) != 1:
        raise InputError(f"expected curves [B, P+1], or several such arrays of one P; got shapes {shapes}")
    rows = jnp.concatenate([jnp.asarray(part, jnp.float32) for part in parts])
    if not len(rows):
        raise InputError("expected the curves of at least one image; got none")
    return rows


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), such as 0.95; got {level}")


def _measure(explained: Explained) -> Iterator[Number | Line]:
    """The numbers and the curves of each method, for each way of removing players."""
    sizes = list(explained.sizes)
    num_players = explained.orders.shape[-1]
    # One compiled pass takes the orders of all methods.
    found = {
        (removal, direction): curve_readouts(
            game,
            explained.orders[:, d],
            insertion=direction == "insertion",
            sizes=sizes,
            batch_size=explained.batch_size,
        )
        for removal, game in explained.games.items()
        for d, direction in enumerate(DIRECTIONS)
    }
    flips = {at: np.asarray(smallest_flip(r, insertion=at[1] == "insertion", sizes=sizes)) for at, r in found.items()}
    even = np.ones(num_players, np.int32)
    pixels = {
        removal: even if explained.share == "players" else _pixels(as_game(game), num_players, explained.regions)
        for removal, game in explained.games.items()
    }
    for i, method in enumerate(explained.methods):
        for (removal, direction), read in found.items():
            order = explained.orders[i, DIRECTIONS.index(direction)]
            shares = _exact_shares(order, pixels[removal])[sizes]
            probabilities = np.asarray(_quantity(read, "probabilities")[i])
            leads = np.asarray(_quantity(read, "leads")[i], np.float32)
            areas = {"probability": np.trapezoid(probabilities, shares), "accuracy": np.trapezoid(leads, shares)}
            for quantity, area in areas.items():
                yield Number(f"{direction} {quantity} area", method, removal, float(area))
            which = "that is enough" if direction == "insertion" else "to lose"
            yield Number(f"smallest group {which}", method, removal, float(flips[removal, direction][i]))
            if direction == "insertion":
                yield Number("highest probability", method, removal, float(probabilities.max()))
            for quantity, values in (("probabilities", probabilities), ("leads", leads)):
                yield Line("curves", method, removal, direction, quantity, shares, values)


def _pixels(game: Game, num_players: int, regions: Int[AnyArray, "H W"]) -> Int[np.ndarray, "P"]:
    """How much of what is shown each player is: tokens where tokens are removed, else pixels."""
    known = game.player_sizes(num_players)
    return np.asarray(region_sizes(regions, num_players) if known is None else known)


def _exact_shares(order: Int[np.ndarray, "P"], pixels: Int[np.ndarray, "P"]) -> Float[np.ndarray, "P1"]:
    """As `shares_along`, in float64 on the host."""
    taken = np.cumsum(pixels[order], dtype=np.float64)
    return np.concatenate([[0.0], taken / taken[-1]])


def _note(sizes: Sequence[int]) -> str:
    return (
        f"Curves are measured at {len(sizes)} sizes ({', '.join(map(str, sizes[:8]))}, ...); a smallest group is "
        "the first of them that does it."
    )


register(
    Metric(
        "curves",
        _measure,
        columns=(
            Column("insertion probability area", higher=True),
            Column("insertion accuracy area", higher=True),
            Column("deletion probability area", higher=False),
            Column("deletion accuracy area", higher=False),
            Column("smallest group that is enough", higher=False, digits=1),
            Column("smallest group to lose", higher=False, digits=1),
            Column("highest probability", higher=True),
        ),
        help="insertion and deletion curves, and the smallest groups that flip the prediction",
        panels=Panels(
            quantities=(("leads", "accuracy"), ("probabilities", "probability of the class")),
            directions=(
                ("insertion", "insertion (higher is better)", "visible, %"),
                ("deletion", "deletion (lower is better)", "removed, %"),
            ),
        ),
        cost=lambda methods, sizes, removals: 2 * methods * sizes * removals,
        note=_note,
        place=10,
    )
)
