"""Adversarial patches in place of masking: how few of an order's players suffice to fool the model.

The pixels of the first k players of an order may become anything that a photo can be, and projected gradient descent
(PGD) looks for what takes the class away; the other pixels stay. The sooner it succeeds, the better the order names
what the model needs: lower areas are better. What is found is an upper bound: a longer attack may find more.

Sources: Sumiyasu, Kawamoto and Kera, CVPR 2024, section 5.3; Madry et al., "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018 (PGD); Brown et al., "Adversarial Patch", 2017.
Deviation: the attack begins at the photo, not at noise, so that it needs no key and all orders begin alike, and it goes
down the log odds of the class, whose gradient does not vanish where the model is certain, as that of its probability
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxmoxi.attribution.game import Problem, need_gradients
from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.image import PixelValueFn, pixel_value_fn
from jaxmoxi.games.payoff import Link
from jaxmoxi.guards import deliberate
from jaxmoxi.metrics.registry import Column, Explained, Metric, Number, register
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.moxi.curves import Share, area_under, check_order, check_share, check_sizes, shares_along
from jaxmoxi.pytrees import is_concrete, record
from jaxmoxi.regions.label_maps import region_sizes, visible_pixels
from jaxmoxi.types import AnyArray

_BATCH = 8  # images attacked at once; a gradient holds several times the memory of an evaluation


@record
class AdversarialCurve:
    """What an attack within the first players of an order reaches, at S group sizes.

    sizes:         int32[S], the players that the attack may change, ascending.
    shares:        float32[*M, S], the share of the pixels (or players) that they have.
    log_odds:      float32[*M, S], the lowest log odds of the class that were found.
    leads:         bool[*M, S], the model still answers the class there: the attack has failed.
    probabilities: float32[*M, S] in [0, 1], of the class, there.
    smallest:      int32[*M], the least of the sizes at which an attack succeeds; one more than the largest for none.
    area:          float32[*M] in [0, 1], under `leads` over the shares; lower is better.

    *M is nothing for one order, and the orders' axis for several.
    """

    sizes: Int[Array, "S"]
    shares: Float[Array, "*M S"]
    log_odds: Float[Array, "*M S"]
    leads: Bool[Array, "*M S"]
    probabilities: Float[Array, "*M S"]
    smallest: Int[Array, "*M"]
    area: Float[Array, "*M"]


class _Found(NamedTuple):
    """The lowest log odds so far, and what was read there, each [B]."""

    log_odds: Float[Array, "B"]
    leads: Bool[Array, "B"]
    probabilities: Float[Array, "B"]


@deliberate
def adversarial_curve(
    logits_fn: Callable[..., Any],
    image: Float[AnyArray, "H W channels"],
    target: Any,
    regions: Int[AnyArray, "H W"],
    order: Int[AnyArray, "P"] | Int[AnyArray, "M P"],
    *,
    sizes: Sequence[int] | None = None,
    steps: int = 20,
    step_size: float = 0.1,
    bounds: tuple[Any, Any] | None = None,
    share: Share = "pixels",
    link: Link | None = None,
    batch_size: int | None = None,
) -> AdversarialCurve:
    """The class's log odds, lead and probability after an attack on the first players of an order, for each size.

    logits_fn:  a differentiable function as `pixel_value_fn` takes it; a Classifier's is `model.logits`.
    image:      float[H, W, channels], as logits_fn wants it (normalised). target, regions, link: as `pixel_value_fn`.
    order:      int[P], a permutation of 0 .. P-1, most important first; or several, int[M, P].
    sizes:      how many players may be changed, ascending numbers in 0 .. P; None: all of 0 .. P. At 0 nothing may.
    steps:      of an attack, each a gradient; at least 1. The best of all steps counts.
    step_size:  how far a step moves each number, by the sign of its gradient, as a share of its range; in (0, 1].
    bounds:     (lowest, highest) that an image can be, numbers or one a channel, in the image's own units. None: those
                that a Classifier's preprocessing makes of 0 and 255; a function of another kind has to say them.
    share:      what the area is over: "pixels", or "players".
    batch_size: attacks at once; None: 8.

    It costs about 3 * steps evaluations for each size. Called from the host.
    Raises ValueError for what `pixel_value_fn` refuses, an image of integers or one outside the bounds, a function
    without a gradient, and for sizes, steps or bounds that cannot be.
    """
    check_share(share)
    v = pixel_value_fn(logits_fn, image, target, regions, payoff="log_odds", link=link)
    if not is_concrete((v.image, order)):
        raise InputError("adversarial_curve is called from the host; take its parts under jit")
    if not jnp.issubdtype(v.image.dtype, jnp.floating):
        raise InputError(f"an image of {v.image.dtype} has no gradient; give floats and a function of float images")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1 or not _is_part(step_size):
        raise InputError(f"expected at least 1 step, of a size in (0, 1]; got {steps!r} of {step_size!r}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    low, high = _range(getattr(logits_fn, "__self__", logits_fn), v.image, bounds)
    orders = jnp.asarray(order)
    single = orders.ndim == 1
    orders = jnp.stack([check_order(row) for row in (orders[None] if single else orders)])
    at = check_sizes(sizes, orders.shape[1])
    if v.num_players not in (None, orders.shape[1]):
        raise InputError(f"expected an order of the {v.num_players} regions; got one of {orders.shape[1]} players")
    told = Problem(v, v.logits_fn, v.image, v.target, v.regions, orders.shape[1], v.link)
    need_gradients(told, "adversarial_curve")
    ranks = jnp.argsort(orders, axis=1)
    patches = (ranks[:, None] < jnp.asarray(at)[:, None]).reshape(-1, orders.shape[1])
    chunk = min(batch_size or _BATCH, len(patches))
    padded = jnp.pad(patches, ((0, -len(patches) % chunk), (0, 0)))
    parts = [
        _attack(v, padded[i : i + chunk], low, high, jnp.float32(step_size), jnp.int32(steps))
        for i in range(0, len(padded), chunk)
    ]
    found = jax.tree.map(lambda *x: jnp.concatenate(x)[: len(patches)].reshape(len(orders), len(at)), *parts)
    if jnp.isnan(found.log_odds).any():
        raise nan_error(f"in an attack on {at[int(jnp.argmax(jnp.isnan(found.log_odds).any(0)))]} of the players")
    pixels = jnp.ones(orders.shape[1]) if share == "players" else region_sizes(v.regions, orders.shape[1])
    shares = shares_along(orders, pixels)[:, jnp.asarray(at)]
    fooled = ~found.leads
    ends = jnp.asarray([*at, at[-1] + 1], jnp.int32)
    smallest = ends[jnp.where(fooled.any(1), jnp.argmax(fooled, axis=1), len(at))]
    area = area_under(found.leads, shares) / (shares[:, -1] - shares[:, 0])
    rows = (shares, *found, smallest, area)
    return AdversarialCurve(jnp.asarray(at, jnp.int32), *(row[0] if single else row for row in rows))


def _read(v: PixelValueFn, images: Float[Array, "B H W channels"]) -> _Found:
    out = v.read(v.classify(images))
    return _Found(out.values, out.leads, out.probabilities)  # type: ignore[arg-type]


@jax.jit
def _attack(
    v: PixelValueFn,
    patches: Bool[Array, "B P"],
    low: Float[Array, "channels"],
    high: Float[Array, "channels"],
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
) -> _Found:
    """The lowest log odds of the class along each attack, the photo itself included."""
    open_ = visible_pixels(patches, v.regions)[..., None]
    images = jnp.broadcast_to(v.image, (len(patches), *v.image.shape))

    def odds(images: Array) -> tuple[Array, _Found]:
        found = _read(v, images)
        return found.log_odds.sum(), found

    def better(best: _Found, found: _Found) -> _Found:
        lower = ~(found.log_odds >= best.log_odds)  # NaN, once there, stays to the end
        return jax.tree.map(partial(jnp.where, lower), found, best)

    def step(i: Array, state: tuple[Array, _Found]) -> tuple[Array, _Found]:
        del i
        images, best = state
        slope, found = jax.grad(odds, has_aux=True)(images)
        moved = jnp.clip(images - step_size * (high - low) * jnp.sign(slope), low, high)
        return jnp.where(open_, moved, images), better(best, found)

    nothing = _Found(jnp.full(len(patches), jnp.inf), jnp.ones(len(patches), bool), jnp.zeros(len(patches)))
    images, best = jax.lax.fori_loop(0, steps, step, (images, nothing))
    return better(best, _read(v, images))


def _range(owner: Any, image: Num[Array, "H W channels"], bounds: Any) -> tuple[Array, Array]:
    channels = image.shape[-1]
    if bounds is None:
        preprocessing = getattr(owner, "preprocessing", None)
        if not isinstance(preprocessing, Preprocessing):
            raise InputError(
                "an attack has to know what an image can be: give bounds=(lowest, highest) in the image's own units"
            )
        p = preprocessing
        bounds = tuple(
            (np.full(channels, level * p.rescale_factor + p.offset) - p.mean) / np.asarray(p.std) for level in (0, 255)
        )
    try:
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), (channels,)) for bound in bounds)
    except (TypeError, ValueError):
        raise InputError(
            f"expected bounds=(lowest, highest), numbers or one for each of {channels} channels; got {bounds!r}"
        ) from None
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise InputError(f"expected bounds (lowest, highest) of finite numbers, the first lower; got {bounds!r}")
    numbers = np.asarray(image, np.float32)
    slack = 1e-3 * (high - low)
    if (numbers < low - slack).any() or (numbers > high + slack).any():
        raise InputError(
            f"expected an image within the bounds; got values from {numbers.min():.4g} to {numbers.max():.4g}, outside "
            f"{low.min():.4g} to {high.max():.4g}: make it by model.preprocess(photo), or give the bounds it has"
        )
    return jnp.asarray(low), jnp.asarray(high)


def _is_part(number: Any) -> bool:
    return isinstance(number, int | float | np.number) and bool(0 < number <= 1)


_SHARES, _STEPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5), 20


def _points(num_players: int) -> list[int]:
    return sorted({round(share * num_players) for share in _SHARES})


def _measure(explained: Explained) -> Iterator[Number]:
    """How long each method's deletion order withstands the attack, up to half of the players."""
    found = adversarial_curve(
        explained.model.logits,
        explained.image,
        explained.target,
        explained.regions,
        explained.orders[:, 1],
        sizes=_points(explained.orders.shape[-1]),
        steps=_STEPS,
        share=explained.share,
        link=explained.model.link,
    )
    for i, method in enumerate(explained.methods):
        yield Number("accuracy under attack", method, "attack", float(found.area[i]))
        yield Number("smallest group that fools", method, "attack", float(found.smallest[i]))


register(
    Metric(
        "adversarial",
        _measure,
        columns=(
            Column("accuracy under attack", higher=False),
            Column("smallest group that fools", higher=False, digits=1),
        ),
        help="how few players an adversarial patch needs",
        by_default=False,
        removals=(
            ("attack", f"pixels attacked (PGD, {_STEPS} steps) in up to half of the players of the deletion orders"),
        ),
        cost=lambda methods, sizes, removals: 3 * _STEPS * methods * len(_SHARES),
        place=44,
    )
)
