"""Attribution from this package's own search, from sampled Shapley values, and by chance.

Sources: Sumiyasu, Kawamoto, Kera, "Identifying Important Group of Pixels using Interactions", CVPR 2024 (MoXI and
MoXI(-)); Castro, Gómez and Tejada, Computers & Operations Research 2009 (sampled Shapley values).

Where a method gives an order, a player's score is P less its place in it, counted from 0: P for the first, 1 for the
last. Players that MoXI(-) cannot tell apart share the mean of their places.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.attribution.game import Problem, Seed, need_key
from jaxmoxi.attribution.methods import Effort, Method, coalition_batches, one_each, register
from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import evaluate, read_rows
from jaxmoxi.interactions.shapley import sampled_shapley
from jaxmoxi.moxi.contexts import full_context_shapley, self_context_shapley
from jaxmoxi.moxi.greedy import greedy_deletion, greedy_insertion
from jaxmoxi.moxi.stages import choose_chunk
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.search.shared import remove_in_rounds
from jaxmoxi.types import Stop


def shapley(key: Seed, problem: Problem, *, num_samples: int = 16, batch_size: int | None = None) -> Float[Array, "P"]:
    """Shapley values by sampling, of either sign; see `jaxmoxi.sampled_shapley`.

    num_samples: at least 2; num_samples * (P - 1) + 2 values, what so many random orders of the players cost.
    Raises ValueError without a key and for fewer than two samples.
    """
    given = need_key(key, "sampling Shapley values")
    v, num_players = problem.v, problem.num_players
    return sampled_shapley(given, v, num_players, num_samples=num_samples, batch_size=batch_size).values


def moxi_single(
    key: Seed, problem: Problem, *, insertion: bool = True, batch_size: int | None = None
) -> Float[Array, "P"]:
    """MoXI(-): the order by single-player values, without interactions; see `jaxmoxi.single_player_order`.

    key:       unused, may be None.
    insertion: True ranks by v({i}) - v({}), False by v(N) - v(N - i). P + 1 values.
    """
    del key
    return _ranked(_single_values(problem, insertion, batch_size))


def moxi(
    key: Seed,
    problem: Problem,
    *,
    insertion: bool = True,
    num_steps: int | None = None,
    batch_size: int | None = None,
) -> Float[Array, "P"]:
    """MoXI: the order of the greedy search; see `jaxmoxi.greedy_insertion` and `greedy_deletion`.

    key:       unused, may be None.
    insertion: True inserts players one after the other, False deletes them.
    num_steps: how many players the search chooses one by one, >= 1. The remaining R are ranked in eight rounds, about
               9R/2 evaluations. Each fixes an eighth: the least important last (insertion), the most important next
               (deletion). None chooses all one by one: P(P+1)/2 values.

    A NaN value raises (outside `jit`; inside it, all scores are NaN). Raises ValueError for num_steps below 1.
    """
    del key
    num_players = problem.num_players
    if num_steps is not None and num_steps < 1:
        raise InputError(f"num_steps must be at least 1, or None for a full order; got {num_steps}")
    count = num_players if num_steps is None else min(num_steps, num_players)
    search = greedy_insertion if insertion else greedy_deletion
    stop = None if count == num_players else Stop(size=count)
    result = search(problem.v, num_players, stop=stop, batch_size=batch_size)
    first, rest = result.order[:count], num_players - count
    last = jnp.zeros(0, jnp.int32)
    broken = result.num_steps < count
    if rest:
        last, failed = _rank_rest(
            problem.v, jnp.zeros(num_players, bool).at[first].set(True), rest, insertion, batch_size
        )
        broken |= failed
    order = jnp.concatenate([first, last[::-1] if insertion else last])
    scores = jnp.zeros(num_players).at[order].set(num_players - jnp.arange(num_players, dtype=jnp.float32))
    return jnp.where(broken, jnp.nan, scores)


def _rank_rest(
    game: Game, first: Bool[Array, "P"], rest: int, insertion: bool, batch_size: int | None
) -> tuple[Int[Array, "R"], Bool[Array, ""]]:
    """The players that were not chosen, from the least missed (insertion) or the most missed (deletion) on."""
    num_players = first.shape[0]
    # On the host, a game that does not gain from small coalitions is asked in chunks of one compiled shape: each round
    # has another number of candidates, and would otherwise be another compilation.
    chunked = not game.sized and is_concrete((game, first))
    size = choose_chunk(game, num_players, range(1, rest + 1), batch_size, None) if chunked else None

    def ask(group: Bool[Array, "P"], players: Int[Array, "C"]) -> Float[Array, "C"]:
        masks = group & (players[:, None] != jnp.arange(num_players))
        shown = len(players) - 1 + (num_players - rest if insertion else 0)
        if size is None:
            values = evaluate(game, masks, batch_size=batch_size, max_visible=max(shown, 1))
        else:
            values = jnp.asarray(read_rows(game, np.asarray(masks), size=size, max_visible=None).values)
        if is_concrete(values) and jnp.isnan(values).any():
            hidden = jnp.flatnonzero(~masks[jnp.argmax(jnp.isnan(values))]).tolist()
            raise nan_error(f"with the players {hidden} hidden")
        return values if insertion else -values

    visible = jnp.ones(num_players, bool) if insertion else ~first
    ends = [rest - rest * k // 8 for k in range(9)]
    rounds = [(a, a - b) for a, b in pairwise(ends) if a > b]
    gone, broken = remove_in_rounds(ask, visible, ~first, rounds)
    return jnp.asarray(gone), jnp.asarray(broken)


def random_scores(key: Seed, problem: Problem) -> Float[Array, "P"]:
    """A random order, all equally likely: what a method must beat. Raises ValueError without a key."""
    given = need_key(key, "a random order")
    return 1.0 + jax.random.permutation(given, problem.num_players).astype(jnp.float32)


def _single_values(problem: Problem, insertion: bool, batch_size: int | None) -> Float[Array, "P"]:
    values = self_context_shapley if insertion else full_context_shapley
    return values(problem.v, problem.num_players, batch_size=batch_size)


def _ranked(values: Float[Array, "P"]) -> Float[Array, "P"]:
    """P less the place in descending order; equal values share the mean of their places. All NaN if one value is."""
    above = jnp.sum(values[:, None] < values, axis=1)
    tied = jnp.sum(values[:, None] == values, axis=1)
    places = above + (tied - 1) / 2
    return jnp.where(jnp.isnan(values).any(), jnp.nan, values.shape[0] - places.astype(jnp.float32))


def _shapley_options(effort: Effort) -> dict[str, Any]:
    # A sample is a whole permutation, of about P evaluations.
    return {"num_samples": max(2, effort.samples // effort.num_players), "batch_size": effort.batch_size}


def _moxi_options(effort: Effort) -> dict[str, Any]:
    steps = None if effort.steps is None else min(effort.steps, effort.num_players)
    return {"num_steps": steps, "batch_size": effort.batch_size}


def _shapley_cost(effort: Effort) -> int:
    return max(2, effort.samples // effort.num_players) * (effort.num_players - 1) + 2


def _moxi_cost(effort: Effort) -> int:
    count = effort.num_players if effort.steps is None else min(effort.steps, effort.num_players)
    rest = effort.num_players - count
    return (effort.num_players * (effort.num_players + 1) - rest * (rest + 1) + 9 * rest) // 2


_MOXI = "Sumiyasu, Kawamoto and Kera, CVPR 2024"
register(
    Method(
        "shapley",
        shapley,
        "Castro, Gómez and Tejada, Computers & Operations Research 2009",
        draws=True,
        complete="players",
        help="Shapley values from random permutations",
        options=_shapley_options,
        cost=_shapley_cost,
        place=70,
        colour="#006400",
    )
)
register(
    Method(
        "moxi-single",
        moxi_single,
        _MOXI,
        directed=True,
        help="MoXI without interactions: regions in the order of their own values",
        options=coalition_batches,
        cost=one_each,
        place=900,
        colour="#d0021b",
        line=":",
        bold=True,
    )
)
register(
    Method(
        "moxi",
        moxi,
        _MOXI,
        directed=True,
        help="MoXI: the region that moves the payoff most together with those already chosen, one after the other",
        options=_moxi_options,
        cost=_moxi_cost,
        place=910,
        colour="#d0021b",
        bold=True,
    )
)
register(
    Method(
        "random",
        random_scores,
        "no source: chance",
        draws=True,
        help="a random order, which a method must beat",
        place=990,
        colour="#888888",
        line="--",
    )
)
