"""Corruptions in place of masking: the prediction while an order's players are corrupted instead of hidden.

The first k players of an order have their pixels from a corrupted photo (`corruptions.corrupt`), the others from the
photo itself; k goes from 0, the photo, to P, the corrupted photo. The sooner the prediction falls, the better the order
names what the model needs, and no fill that the model has never seen decides it: lower areas are better. Both ends are
the same for all orders.

Source: Sumiyasu, Kawamoto and Kera, CVPR 2024, section 5.3 and appendix G.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game
from jaxmoxi.games.fill import fill_image
from jaxmoxi.games.image import pixel_value_fn
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.games.payoff import Link, Payoff
from jaxmoxi.guards import deliberate
from jaxmoxi.metrics.corruptions import CORRUPTIONS, SEVERITIES, CorruptionKind, check_photo, corrupt
from jaxmoxi.metrics.registry import Column, Explained, Line, Metric, Number, Panels, register
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.moxi.curves import Share, area_under, check_order, check_share, check_sizes, curve_readouts, shares_along
from jaxmoxi.pytrees import is_concrete, record, static
from jaxmoxi.regions.label_maps import region_sizes
from jaxmoxi.types import AnyArray, Readout


@record
class CorruptionCurves:
    """The prediction along orders whose players are corrupted: C kinds, V severities, S group sizes.

    sizes:         int32[S], the players that are corrupted, ascending.
    shares:        float32[*M, S], the share of the pixels (or players) that they have.
    values:        float32[*M, C, V, S], the payoff.
    leads:         bool[*M, C, V, S], the model answers the class.
    probabilities: float32[*M, C, V, S] in [0, 1], of the class.
    kinds:         static, the C kinds of corruption. severities: static, the V severities.

    *M is nothing for one order, and the orders' axis for several.
    """

    sizes: Int[Array, "S"]
    shares: Float[Array, "*M S"]
    values: Float[Array, "*M C V S"]
    leads: Bool[Array, "*M C V S"]
    probabilities: Float[Array, "*M C V S"]
    kinds: tuple[CorruptionKind, ...] = static()
    severities: tuple[int, ...] = static()

    @property
    def areas(self) -> Float[Array, "*M C V"]:
        """The area under each payoff over the shares; lower is better."""
        return self._areas(self.values)

    @property
    def accuracy_areas(self) -> Float[Array, "*M C V"]:
        """The area under each lead, in [0, 1]; lower is better."""
        return self._areas(self.leads)

    @property
    def probability_areas(self) -> Float[Array, "*M C V"]:
        """The area under each probability, in [0, 1]; lower is better."""
        return self._areas(self.probabilities)

    @property
    def probability_area(self) -> Float[Array, "*M"]:
        """The mean of `probability_areas` over kinds and severities: one number an order, lower is better."""
        return self.probability_areas.mean((-2, -1))

    @property
    def accuracy_area(self) -> Float[Array, "*M"]:
        """The mean of `accuracy_areas` over kinds and severities."""
        return self.accuracy_areas.mean((-2, -1))

    def _areas(self, curves: Array) -> Float[Array, "*M C V"]:
        span = self.shares[..., -1] - self.shares[..., 0]
        return area_under(curves, self.shares[..., None, None, :]) / span[..., None, None]


@deliberate
def corruption_curve(
    key: RandomKey,
    logits_fn: Callable[..., Any],
    photo: Num[AnyArray, "H W channels"],
    target: Any,
    regions: Int[AnyArray, "H W"],
    order: Int[AnyArray, "P"] | Int[AnyArray, "M P"],
    *,
    kinds: Sequence[CorruptionKind] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    sizes: Sequence[int] | None = None,
    share: Share = "pixels",
    normalize: Callable[[Float[Array, "H W channels"]], Float[Array, "H W channels"]] | None = None,
    payoff: Payoff = "log_odds",
    link: Link | None = None,
    batch_size: int | None = None,
) -> CorruptionCurves:
    """The payoff, lead and probability while the players of an order are corrupted, under each kind and severity.

    key:        a JAX random key. The draws follow from the key and the kind alone: all orders meet the same corrupted
                photos.
    logits_fn:  as `pixel_value_fn` takes it; a Classifier's is `model.logits`. Vision transformers too are given
                pixels here, all tokens present.
    photo:      uint8, or float in [0, 255], [H, W, channels]: what the model sees of a photo, before it is normalised,
                `model.crop(photo)`.
    target:     the class explained, as `pixel_value_fn` takes it.
    regions:    int[H, W], labels 0 .. P-1.
    order:      int[P], a permutation of 0 .. P-1, most important first; or several, int[M, P], in one pass.
    kinds, severities: of `corrupt`.
    sizes:      how many players are corrupted, ascending numbers in 0 .. P; None: all of 0 .. P.
    share:      what areas are over: "pixels", or "players".
    normalize:  photo float32[H, W, channels] in [0, 255] -> image as logits_fn wants it. None: that of the Classifier
                that logits_fn belongs to; a function of another kind has to say it.
    payoff, link, batch_size: as `pixel_value_fn` and `curve_readouts` take them.

    It evaluates about len(kinds) * len(severities) * M * (S - 2) coalitions by one compiled program; what all orders
    share, the photo and the corrupted ones, is evaluated once. Called from the host.
    Raises ValueError for what `corrupt`, `pixel_value_fn` and `curve_readouts` refuse, for kinds or severities that are
    unknown, repeated or none, and for a photo that is not of the model's size.
    """
    check_share(share)
    kinds, severities = _checked(kinds, CORRUPTIONS, "kinds"), _checked(severities, SEVERITIES, "severities")
    photo = check_photo(photo)
    if not is_concrete((photo, order)):
        raise InputError("corruption_curve is called from the host, as it goes through its corruptions one by one")
    owner = getattr(logits_fn, "__self__", logits_fn)
    normalize = normalize or _normalizer(owner, photo)
    v = pixel_value_fn(logits_fn, normalize(photo), target, regions, payoff=payoff, link=link)
    orders = jnp.asarray(order)
    single = orders.ndim == 1
    orders = jnp.stack([check_order(row) for row in (orders[None] if single else orders)])
    num_players = orders.shape[1]
    at = check_sizes(sizes, num_players)
    clean = curve_readouts(v, orders[:1], insertion=False, sizes=[0], batch_size=batch_size) if at[0] == 0 else None
    found = []
    for name in kinds:
        own = jax.random.fold_in(key, CORRUPTIONS.index(name))
        for severity in severities:
            fill = fill_image(v.image, normalize(corrupt(own, photo, name, severity)))
            game = dataclasses.replace(v, fill=fill)
            found.append(_readouts(game, orders, at, clean, batch_size))
    pixels = jnp.ones(num_players) if share == "players" else region_sizes(v.regions, num_players)
    shares = shares_along(orders, pixels)[:, jnp.asarray(at)]
    shape = (len(orders), len(kinds), len(severities), len(at))
    values, leads, probabilities = (jnp.stack(list(rows), axis=1).reshape(shape) for rows in zip(*found, strict=True))
    if single:
        shares, values, leads, probabilities = shares[0], values[0], leads[0], probabilities[0]
    return CorruptionCurves(jnp.asarray(at, jnp.int32), shares, values, leads, probabilities, kinds, severities)


def _readouts(
    game: Game, orders: Int[Array, "M P"], sizes: list[int], clean: Readout | None, batch_size: int | None
) -> Readout:
    """What `curve_readouts` says along orders of deletion, [M, S]; the ends, which all orders share, once.

    clean: the readout of the photo, [1, 1], where the sizes begin with 0.
    """
    count, num_players = orders.shape
    inner = [k for k in sizes if 0 < k < num_players]
    parts = [] if clean is None else [jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), clean)]
    if inner:
        parts.append(curve_readouts(game, orders, insertion=False, sizes=inner, batch_size=batch_size))
    if sizes[-1] == num_players:
        end = curve_readouts(game, orders[:1], insertion=False, sizes=[num_players], batch_size=batch_size)
        parts.append(jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), end))
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)


def _checked(names: Sequence[Any], allowed: Sequence[Any], what: str) -> tuple[Any, ...]:
    if isinstance(names, np.ndarray | jax.Array):
        names = np.asarray(names).tolist()
    given = tuple(names) if isinstance(names, Sequence) and not isinstance(names, str) else (names,)
    if not given or any(name not in allowed for name in given) or len(set(given)) < len(given):
        raise InputError(f"expected {what} among {', '.join(map(str, allowed))}, each once; got {names!r}")
    return given


def _normalizer(owner: Any, photo: Num[Array, "H W channels"]) -> Callable[[Array], Float[Array, "H W channels"]]:
    preprocessing = getattr(owner, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        raise InputError(
            "corruptions are of photos from 0 to 255: give normalize=, which makes of such a photo what the function "
            "takes (normalize=lambda photo: photo / 255 for one of images from 0 to 1)"
        )
    size, channels = preprocessing.size, preprocessing.num_channels
    if photo.shape != (*size, channels):
        raise InputError(
            f"expected the photo as the model sees it, of shape {[*size, channels]}; got {list(photo.shape)}: "
            "model.crop(photo) makes one"
        )

    def normalize(photo: Array) -> Float[Array, "H W channels"]:
        scaled = photo.astype(jnp.float32) * preprocessing.rescale_factor + preprocessing.offset
        return (scaled - jnp.asarray(preprocessing.mean)) / jnp.asarray(preprocessing.std)

    return normalize


_POINTS = 7  # sizes of a study's curves, between which they are straight; denser where orders differ most


def _points(num_players: int) -> list[int]:
    return sorted({round(p**1.7 * num_players) for p in np.linspace(0, 1, _POINTS)})


_PANELS = {"severity 1": (1,), "severity 3": (3,), "severity 5": (5,)}


def _title(kind: CorruptionKind) -> str:
    return {"jpeg": "JPEG"}.get(kind, kind.replace("_", " "))


def _measure(explained: Explained) -> Iterator[Number | Line]:
    """The curves of the deletion orders of all methods, under all kinds and severities."""
    if explained.photo is None:
        raise InputError('the metric "corruption" needs the photo before it was normalised: Explained(photo=...)')
    found = corruption_curve(
        explained.key,
        explained.model.logits,
        explained.photo,
        explained.target,
        explained.regions,
        explained.orders[:, 1],
        sizes=_points(explained.orders.shape[-1]),
        share=explained.share,
        batch_size=explained.batch_size,
    )
    areas, accuracy = np.asarray(found.probability_areas), np.asarray(found.accuracy_area)
    curves = {"leads": np.asarray(found.leads, np.float32), "probabilities": np.asarray(found.probabilities)}
    shares = np.asarray(found.shares, np.float64)
    for i, method in enumerate(explained.methods):
        yield Number("corruption probability area", method, "corruption", float(areas[i].mean()))
        yield Number("corruption accuracy area", method, "corruption", float(accuracy[i]))
        for c, kind in enumerate(found.kinds):
            yield Number(_title(kind), method, "corruption", float(areas[i, c].mean()))
        for panel, severities in _PANELS.items():
            at = [found.severities.index(s) for s in severities]
            for quantity, values in curves.items():
                mean = values[i][:, at].mean((0, 1)).astype(np.float32)
                yield Line("corruption", method, "corruption", panel, quantity, shares[i], mean)


register(
    Metric(
        "corruption",
        _measure,
        columns=(
            Column("corruption probability area", higher=False),
            Column("corruption accuracy area", higher=False),
            *(Column(_title(kind), higher=False) for kind in CORRUPTIONS),
        ),
        help="the prediction while players are corrupted, as ImageNet-C does it, instead of hidden",
        by_default=False,
        removals=(
            (
                "corruption",
                "pixels corrupted as in ImageNet-C, along the deletion orders: areas under the probability, "
                f"of curves of {_POINTS} sizes, means over five severities and the kind named or all ten",
            ),
        ),
        panels=Panels(
            quantities=(("leads", "accuracy"), ("probabilities", "probability of the class")),
            directions=tuple((name, f"{name} (lower is better)", "corrupted, %") for name in _PANELS),
        ),
        cost=lambda methods, sizes, removals: len(CORRUPTIONS) * len(SEVERITIES) * (methods * (_POINTS - 2) + 1),
        place=42,
    )
)
