"""ROAD: remove players, impute the missing pixels, and see whether the prediction holds.

No attribution method optimises this metric. Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for
Attribution Methods", ICML 2022, without the retraining that they show to be unnecessary. `imputation` makes the fill.

The axis of a curve is the share of the image that is *removed*. The `percentile` of pytorch-grad-cam's ROAD is the
reverse, what is *kept*: its 90 removes the tenth of the pixels that matters most, and is the share 0.1 here,
`1 - percentile / 100`.

Deviation: whole players are removed, until they cover a share of the pixels to the nearest player, because an order of
regions does not order the pixels within them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxmoxi.errors import InputError
from jaxmoxi.games.fill import of_kind
from jaxmoxi.games.image import PixelValueFn, pixel_value_fn
from jaxmoxi.games.imputation import RandomKey, check_imputation, impute
from jaxmoxi.games.payoff import Link, answers_class, payoff_values
from jaxmoxi.metrics._order import doubled_pixels, leading_players
from jaxmoxi.metrics.registry import Column, Explained, Line, Metric, Number, register
from jaxmoxi.moxi.curves import check_order
from jaxmoxi.pytrees import record
from jaxmoxi.regions.label_maps import region_sizes, visible_pixels
from jaxmoxi.types import AnyArray


@record
class RoadCurve:
    """The prediction with S shares of the image removed and imputed.

    shares:        float32[S], of the pixels, as asked for.
    leads:         bool[S], the model answers the class; their mean over images is the accuracy.
    probabilities: float32[S] in [0, 1], of the class.
    """

    shares: Float[Array, "*batch S"]
    leads: Bool[Array, "*batch S"]
    probabilities: Float[Array, "*batch S"]


def road_curve(
    key: RandomKey,
    logits_fn: Callable[[Num[Array, "B H W channels"]], Float[Array, "B K"]],
    image: Num[AnyArray, "H W channels"],
    target: int | np.integer | Int[AnyArray, ""],
    regions: Int[AnyArray, "H W"],
    order: Int[AnyArray, "P"],
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    most_relevant_first: bool = True,
    noise: float = 0.01,
    num_iterations: int = 8,
    link: Link | None = None,
) -> RoadCurve:
    """The class's lead and probability as shares of the image are removed and imputed from the rest.

    key:    a JAX random key, for the noise; one key gives all orders the same noise, which is fair.
    logits_fn, image, target, regions, link: as `pixel_value_fn` takes them.
    order:  int[P], a permutation of 0 .. P-1, most important first.
    shares: of the pixels, in [0, 1], removed to the nearest whole player. Endpoints: 0 leaves the image itself; 1 (and
            a share whose nearest player is the last) leaves nothing but noise around 0.
    most_relevant_first: True removes from the head of the order (MoRF), and lower is better; False from its tail
            (LeRF), and higher is better.
    noise, num_iterations: as for `noisy_linear_imputation`.

    All shares are imputed and classified in one batch of S images. Goes under `jit` and `vmap`.
    Raises ValueError for shapes that disagree, an order that is no permutation, and shares outside [0, 1].
    """
    v = pixel_value_fn(logits_fn, image, target, regions, link=link)
    order = check_order(order)
    if v.num_players not in (None, order.shape[0]):
        raise InputError(f"expected an order of the {v.num_players} regions; got one of {order.shape[0]} players")
    asked = np.asarray(shares, np.float64)
    if asked.ndim != 1 or not len(asked) or not ((asked >= 0) & (asked <= 1)).all():
        raise InputError(f"expected shares of the image to remove, numbers in [0, 1]; got {shares}")
    check_imputation(noise, num_iterations)
    doubled = doubled_pixels(asked, v.image.shape[0] * v.image.shape[1])
    order = order if most_relevant_first else order[::-1]
    leads, probabilities = _predict(key, v, order, doubled, noise, num_iterations)
    return RoadCurve(jnp.asarray(asked, jnp.float32), leads, probabilities)


@partial(jax.jit, static_argnums=5)
def _predict(
    key: RandomKey,
    v: PixelValueFn,
    order: Int[Array, "P"],
    doubled: Int[AnyArray, "S"],
    noise: float | Float[AnyArray, ""],
    num_iterations: int,
) -> tuple[Bool[Array, "S"], Float[Array, "S"]]:
    """(leads, probabilities) bool[S], float32[S]."""
    removed = leading_players(order, region_sizes(v.regions, order.shape[0]), doubled)
    hidden = visible_pixels(removed, v.regions)
    keys = jax.random.split(key, len(removed))
    images = jax.vmap(lambda key, hidden: impute(key, v.image, hidden, noise, num_iterations))(keys, hidden)
    logits = v.classify(of_kind(images, v.image.dtype))
    return (
        answers_class(logits, v.target, v.link),
        payoff_values(logits, v.target, "prob", link=v.link),
    )


_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def _measure(explained: Explained) -> Iterator[Number | Line]:
    """The mean probability while the head, or the tail, of each deletion order is removed and imputed."""
    shares = np.asarray(_SHARES)
    for which, first in (("most", True), ("least", False)):
        for method, order in zip(explained.methods, explained.orders[:, 1], strict=True):
            curve = road_curve(
                explained.key,
                explained.model.logits,
                explained.image,
                explained.target,
                explained.regions,
                order,
                shares=_SHARES,
                most_relevant_first=first,
            )
            probabilities = np.asarray(curve.probabilities, np.float32)
            area = np.trapezoid(probabilities, shares) / (shares[-1] - shares[0])
            yield Number(f"ROAD, {which} important first", method, "road", float(area))
            yield Line("road", method, "road", f"{which} important first", "probabilities", shares, probabilities)


register(
    Metric(
        "road",
        _measure,
        columns=(
            Column("ROAD, most important first", higher=False),
            Column("ROAD, least important first", higher=True),
        ),
        help="the prediction while pixels are removed and imputed, which no method optimises",
        by_default=False,
        cost=lambda methods, sizes, removals: 6 * 2 * methods * len(_SHARES),  # imputing an image takes longer still
        removals=(("road", "pixels imputed (ROAD)"),),
        place=40,
    )
)
