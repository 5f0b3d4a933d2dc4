"""Do an explanation's numbers say what the model does? Scores compared with what hiding players changes.

Every function here hides random sets S of players from the whole image and compares, for scores phi,

    said(S) = the sum of phi_i over S             done(S) = v(N) - v(N without S)

Sources: Bhatt, Weller and Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020
(*faithfulness correlation*); Ancona, Ceolini, Öztireli and Gross, "Towards Better Understanding of Gradient-based
Attribution Methods", ICLR 2018 (*sensitivity-n*); Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (In)fidelity and
Sensitivity of Explanations", NeurIPS 2019 (*infidelity*); Sundararajan, Taly and Yan, ICML 2017 (*completeness*).

Deviations: what is hidden are whole players, by the game's own removal, where the papers perturb single pixels.
Scores that are ranks or means, whose sum means nothing, can correlate but not be faithful: compare methods by
"infidelity" with `scaled=True`, which chooses the best factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmoxi.attribution.methods import METHODS
from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.evaluation import evaluate
from jaxmoxi.games.image import pixel_value_fn
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.guards import deliberate
from jaxmoxi.metrics.registry import Column, Explained, Metric, Number, register
from jaxmoxi.pytrees import is_concrete, record
from jaxmoxi.regions.label_maps import region_sizes
from jaxmoxi.types import AnyArray


@deliberate
def faithfulness_correlation(
    key: RandomKey,
    v: ValueFn,
    scores: Float[AnyArray, "P"],
    *,
    subset_size: int | None = None,
    num_samples: int = 100,
    batch_size: int | None = None,
) -> Float[Array, ""]:
    """Pearson's correlation of said(S) and done(S) over random sets S of one size, in [-1, 1]; higher is better.

    key:         a JAX random key; one key gives all explanations the same sets, which is fair.
    v:           the game. scores: float32[P], higher is more important.
    subset_size: players in a set, 1 to P - 1; None means a fifth of them.
    num_samples: sets, at least 3. batch_size: coalitions per chunk.

    NaN where all sets say the same, or all do the same. Costs num_samples + 1 evaluations. Goes under `jit`.
    Source: Bhatt et al. 2020, equation 1. Raises ValueError for arguments that do not fit; NaNValueError for a value
    that is NaN.
    """
    scores = _checked(scores)
    size = max(1, len(scores) // 5) if subset_size is None else subset_size
    return sensitivity_n(key, v, scores, sizes=(size,), num_samples=num_samples, batch_size=batch_size)[0]


@deliberate
def sensitivity_n(
    key: RandomKey,
    v: ValueFn,
    scores: Float[AnyArray, "P"],
    *,
    sizes: Sequence[int],
    num_samples: int = 100,
    batch_size: int | None = None,
) -> Float[Array, "S"]:
    """Pearson's correlation of said(S) and done(S) for each size n of S, in [-1, 1]; higher is better.

    sizes: n, each from 1 to P. The others as for `faithfulness_correlation`; each size has its own num_samples sets.

    1 for every n where the game is additive and the scores are its own. NaN as there, and so at n = P.
    Source: Ancona et al. 2018, section 3.2.
    """
    scores = _checked(scores)
    return _sensitivity(key, v, scores[None], sizes, num_samples, batch_size)[0]


def _sensitivity(
    key: RandomKey,
    v: ValueFn,
    scores: Float[AnyArray, "M P"],
    sizes: Sequence[int],
    num_samples: int,
    batch_size: int | None,
) -> Float[Array, "M S"]:
    """`sensitivity_n` of M explanations, whose sets are the same and so evaluated once."""
    scores = jnp.asarray(scores, jnp.float32)
    count = scores.shape[-1]
    if not len(sizes) or not all(isinstance(n, int | np.integer) and 1 <= n <= count for n in sizes):
        raise InputError(f"expected sets of 1 to {count} players; got sizes {list(sizes)}")
    if num_samples < 3:
        raise InputError(f"expected num_samples of at least 3, for a correlation; got {num_samples}")
    keys = jax.random.split(key, (len(sizes), num_samples))
    ranks = jax.vmap(jax.vmap(lambda k: jnp.argsort(jax.random.permutation(k, count))))(keys)
    hidden = ranks < jnp.asarray(sizes)[:, None, None]
    done = _done(v, hidden.reshape(-1, count), batch_size).reshape(len(sizes), num_samples)
    said = jnp.einsum("snp,mp->msn", hidden.astype(jnp.float32), scores)
    return jax.vmap(jax.vmap(_pearson), (0, None))(said, done)


@deliberate
def infidelity(
    key: RandomKey,
    v: ValueFn,
    scores: Float[AnyArray, "P"],
    *,
    num_samples: int = 200,
    share: float = 0.5,
    scaled: bool = False,
    batch_size: int | None = None,
) -> Float[Array, ""]:
    """The mean of (said(S) - done(S))^2 over random sets S, float32[]; at least 0, lower is better.

    key, v, scores, batch_size: as for `faithfulness_correlation`.
    num_samples: sets, at least 1.
    share:       in (0, 1), with which each player is in a set, by itself.
    scaled:      True multiplies the scores by the factor that makes the result least, so that only their proportions
                 count (the paper's optimal scaling; 0 for scores that are all 0).

    In the payoff's units, squared. 0 where the game is additive and the scores are its own.
    Source: Yeh et al. 2019, definition 2.1 with a random subset of players set to their baseline.
    """
    scores = _checked(scores)
    return _infidelity(key, v, scores[None], num_samples, share, scaled, batch_size)[0]


def _infidelity(
    key: RandomKey,
    v: ValueFn,
    scores: Float[AnyArray, "M P"],
    num_samples: int,
    share: float,
    scaled: bool,
    batch_size: int | None,
) -> Float[Array, "M"]:
    """`infidelity` of M explanations, whose sets are the same and so evaluated once."""
    scores = jnp.asarray(scores, jnp.float32)
    if num_samples < 1 or not 0 < share < 1:
        raise InputError(f"expected num_samples of at least 1 and a share in (0, 1); got {num_samples} and {share}")
    hidden = jax.random.bernoulli(key, share, (num_samples, scores.shape[-1]))
    done = _done(v, hidden, batch_size)
    said = scores @ hidden.astype(jnp.float32).T
    if scaled:
        power = jnp.mean(said**2, axis=1, keepdims=True)
        fit = jnp.mean(said * done, axis=1, keepdims=True)
        said = said * jnp.where(power > 0, fit / jnp.where(power > 0, power, 1), 0)
    return jnp.mean((said - done) ** 2, axis=1)


@record
class Completeness:
    """What `completeness` found, each float32[].

    total:  what the scores sum to.
    change: v(everybody) - v(nobody), what they would sum to.
    gap:    total - change; 0 where the explanation is complete.
    """

    total: Float[Array, ""]
    change: Float[Array, ""]
    gap: Float[Array, ""]


@deliberate
def completeness(v: ValueFn, scores: Float[AnyArray, "P"]) -> Completeness:
    """By how much scores miss the sum that Shapley values and integrated gradients promise (efficiency).

    v:      the game whose values the scores share out: of integrated gradients from the baseline 0, the game of pixels
            filled with 0, and each score times its player's number of pixels (`jm.region_sizes`).
    scores: float32[P].

    Two evaluations. Raises NaNValueError for a value that is NaN.
    """
    scores = _checked(scores)
    ends = evaluate(v, jnp.stack([jnp.zeros(len(scores), bool), jnp.ones(len(scores), bool)]))
    _raise_nan(ends, jnp.asarray([[True] * len(scores), [False] * len(scores)]))
    total, change = scores.sum(), ends[1] - ends[0]
    return Completeness(total, change, total - change)


def _checked(scores: Float[AnyArray, "P"]) -> Float[Array, "P"]:
    scores = jnp.asarray(scores, jnp.float32)
    if scores.ndim != 1 or not scores.size:
        raise InputError(f"expected scores float32[P] of one explanation; got shape {scores.shape}")
    if is_concrete(scores) and not np.isfinite(scores).all():
        raise InputError(
            f"expected finite scores; that of player {int(np.argmin(np.isfinite(scores)))} is "
            f"{float(scores[np.argmin(np.isfinite(scores))])}"
        )
    return scores


def _done(v: ValueFn, hidden: Bool[Array, "C P"], batch_size: int | None) -> Float[Array, "C"]:
    """v(N) - v(N without S) of each row of hidden players."""
    rows = jnp.concatenate([jnp.zeros_like(hidden[:1]), hidden])
    values = evaluate(v, ~rows, batch_size=batch_size, max_visible=hidden.shape[1])
    _raise_nan(values, rows)
    return values[0] - values[1:]


def _raise_nan(values: Float[Array, "C"], hidden: Bool[Array, "C P"]) -> None:
    if is_concrete((values, hidden)) and np.isnan(values).any():
        players = np.flatnonzero(hidden[int(np.argmax(np.isnan(values)))]).tolist()
        raise nan_error(f"with the players {players} hidden")


def _pearson(a: Float[Array, "C"], b: Float[Array, "C"]) -> Float[Array, ""]:
    def centred(x: Any) -> tuple[Any, Any]:
        """(x less its mean, whether x is the same everywhere): what is left of equal numbers is rounding, and would
        correlate with anything."""
        rest = x - x.mean()
        return rest, jnp.max(jnp.abs(rest)) <= 1e-6 * jnp.max(jnp.abs(x))

    (a, flat), (b, level) = centred(a), centred(b)
    power = jnp.sqrt(jnp.sum(a * a)) * jnp.sqrt(jnp.sum(b * b))
    undefined = flat | level | (power <= 0)
    return jnp.where(undefined, jnp.nan, jnp.sum(a * b) / jnp.where(undefined, 1, power))


def _measured(
    column: str, explained: Explained, ask: Callable[[ValueFn, Float[np.ndarray, "M P"]], Any]
) -> Iterator[Number]:
    """A number for each method under each removal. ask: (game, scores for deletion) -> M numbers.

    What a method reads off the network is a mean over each player's pixels; over sets of players such scores add up
    when each is taken as often as its player has pixels.
    """
    sizes = np.asarray(region_sizes(explained.regions, explained.scores.shape[-1]), np.float32)
    pooled = np.array([bool(METHODS[method].needs) for method in explained.methods])
    scores = explained.scores[:, 1] * np.where(pooled[:, None], sizes, 1)
    for removal, v in explained.games.items():
        for method, value in zip(explained.methods, np.asarray(ask(v, scores)), strict=True):
            yield Number(column, method, removal, float(value))


def _measure_correlation(explained: Explained) -> Iterator[Number]:
    """Over sets of a fifth of the players."""
    size = (max(1, explained.scores.shape[-1] // 5),)
    return _measured(
        "faithfulness correlation",
        explained,
        lambda v, scores: _sensitivity(explained.key, v, scores, size, 100, explained.batch_size)[:, 0],
    )


def _measure_sensitivity(explained: Explained) -> Iterator[Number]:
    """The mean over sets of a tenth, a quarter, a half and three quarters of the players; NaN where none is known."""
    count = explained.scores.shape[-1]
    sizes = sorted({max(1, round(count * share)) for share in (0.1, 0.25, 0.5, 0.75)})

    def ask(v: ValueFn, scores: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M"]:
        each = np.asarray(_sensitivity(explained.key, v, scores, sizes, 50, explained.batch_size))
        known = ~np.isnan(each)
        return np.where(known, each, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)

    return _measured("sensitivity-n", explained, ask)


def _measure_infidelity(explained: Explained) -> Iterator[Number]:
    """With the best factor, as most methods' scores have no unit."""
    return _measured(
        "infidelity",
        explained,
        lambda v, scores: _infidelity(explained.key, v, scores, 200, 0.5, True, explained.batch_size),
    )


def _measure_completeness(explained: Explained) -> Iterator[Number]:
    """The gap of each method that promises a sum, as a share of what it would sum to; in absolute value."""
    problem = explained.problem
    if problem is None:
        return
    sizes = np.asarray(region_sizes(explained.regions, explained.scores.shape[-1]))
    for method, scores in zip(explained.methods, explained.scores[:, 0], strict=True):
        kind = METHODS[method].complete
        if kind == "players":
            found = completeness(problem.v, scores)
        elif kind == "pixels":
            logits: Any = getattr(explained.model, "logits", explained.model)
            zeros = pixel_value_fn(
                logits, explained.image, explained.target, explained.regions, payoff=problem.payoff()
            )
            found = completeness(zeros, scores * sizes)
        else:
            continue
        change = abs(float(found.change))
        yield Number("completeness gap", method, "", abs(float(found.gap)) / change if change else float("nan"))


for _metric in (
    Metric(
        "completeness",
        _measure_completeness,
        columns=(Column("completeness gap", higher=False),),
        help="by how much the scores of Shapley values and integrated gradients miss the sum that they promise",
        cost=lambda methods, sizes, removals: 4,
        place=45,
    ),
    Metric(
        "faithfulness",
        _measure_correlation,
        columns=(Column("faithfulness correlation", higher=True),),
        cost=lambda methods, sizes, removals: 101 * removals,
        help="whether players with high scores change the payoff much when they are hidden (Bhatt et al.)",
        by_default=False,
        place=50,
    ),
    Metric(
        "sensitivity-n",
        _measure_sensitivity,
        columns=(Column("sensitivity-n", higher=True),),
        cost=lambda methods, sizes, removals: 201 * removals,
        help="the same over sets of a tenth to three quarters of the players (Ancona et al.)",
        by_default=False,
        place=51,
    ),
    Metric(
        "infidelity",
        _measure_infidelity,
        columns=(Column("infidelity", higher=False),),
        cost=lambda methods, sizes, removals: 201 * removals,
        help="the squared error of scores as predictions of what hiding players changes (Yeh et al.)",
        by_default=False,
        place=52,
    ),
):
    register(_metric)
