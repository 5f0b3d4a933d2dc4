"""Class-discriminative MoXI: why another class than the one that the model answers?

The question is that of Sumiyasu, Kawamoto, Kera, "Identifying Important Group of Pixels using Interactions", CVPR 2024,
section 5.2 and figure 5. The two phases follow a description of that section; they were not compared with the paper's
own text or results, so take the formulas below as this package's. `t` is the payoff of a target that the model does
not answer, `p` that of the class that it does, N all players. Two searches follow one another:

*Phase one* takes away what hides the target. It is MoXI's deletion (`greedy`) of the difference of the payoffs: with R
removed so far, held together as one player,

    next = argmax_b  (t - p)(N - R - b)

the player whose removal, together with that of R, hurts the predicted class and helps the target most. It ends when the
target leads.

*Phase two* asks, in the image N - R that is left, for the players that the target cannot do without. It is MoXI's
deletion of the target's payoff, and ends when the target no longer leads:

    next = argmin_b  t(N - R - D - b)              D: the players found so far

or, with `insertion=True`, for players that are enough by themselves: MoXI's insertion among those of N - R, which ends
when the target leads.

    next = argmax_b  t(D + b),  b in N - R

Chosen here: what is compared is any payoff (`jaxmoxi.games.payoff`), log-odds by default, and each phase ends by a
`Stop`. A target that leads already has an empty first phase. One that never leads has the order in which all players
were removed, and no second phase. Probabilities that float32 rounds to one number are told apart by their remainders.
`insertion=True` is this package's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.evaluation import check_batch_size
from jaxmoxi.games.rivals import difference_game
from jaxmoxi.guards import deliberate, without_gradient
from jaxmoxi.moxi.greedy import last_size
from jaxmoxi.moxi.phases import DELETION, FIRST, INSERTION, now, run_phase, start_phase, tells_both, two_classes
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import Discrimination, GreedyInfo, Stop


@deliberate
def discriminate(
    v_target: ValueFn,
    v_predicted: ValueFn,
    num_players: int,
    *,
    stop: Stop | None = None,
    insertion: bool = False,
    batch_size: int | None = None,
    callback: Callable[[GreedyInfo], None] | None = None,
) -> Discrimination:
    """MoXI for a class that the model does not predict: what hides it, and what it rests on (see the module's head).

    v_target:    the game of the class that is asked about.
    v_predicted: the game of the class that the model predicts: of the same image and players, under the same payoff.
                 `pixel_value_fn` and `token_value_fn` make it with target=None. Where the two differ in their target
                 alone, both are read in one forward pass; inside `jit` and `vmap`, where nobody can compare their
                 arrays, that takes `dataclasses.replace(v_target, target=...)`. Two plain functions are called both.
    num_players: P, at least 1.
    stop:        when phase one ends, in the target's terms, met from below; None means that the target leads
                 (`Stop(flip=True)`), which for a function that cannot tell is that its value is above the other's.
                 Another level, such as `Stop(probability=0.5)`, asks for more than a bare lead. Phase two ends by the
                 same conditions, `size` aside: with deletion once they are no longer met, with insertion once they are.
    insertion:   False: phase two finds players that the target cannot do without in what is left of the image; True:
                 players among those left that are enough by themselves.
    batch_size:  coalitions per chunk; None chooses.
    callback:    called on the host after each choice of both phases; `step` counts on through the second. Raises
                 ValueError inside `jit`.

    Returns a `Discrimination`. A target that leads from the start has an empty first phase; one that never leads has
    `flipped` False and an empty second. At most P(P+1)/2 values in both. Under `jit` and `vmap` it is traced along.
    Raises NaNValueError (outside `jit`) that names phase, step and player; OutOfMemoryError with the batch size to try;
    ValueError for games that do not fit each other or are of the same class, a `stop` that the target's game cannot
    answer, and as `greedy_deletion`.
    """
    game = difference_game(v_target, v_predicted, num_players)
    stop = Stop(flip=True) if stop is None else stop
    shapes = tells_both(game, num_players)
    stop.check(shapes.target._replace(leads=shapes.leads))
    check_batch_size(batch_size)
    everybody = jnp.ones(num_players, bool)
    start = start_phase(game, everybody, everybody)
    eager = is_concrete((game, start))
    if callback is not None and not eager:
        raise InputError("callback needs a search outside jit and vmap: there is no host to call inside")
    run = partial(run_phase, game, batch_size=batch_size, callback=callback)
    first = run(start, stop, FIRST, last_size(stop, num_players), num_players)
    told, leveled = now(first), stop.value is not None or stop.probability is not None
    goal = Stop(value=stop.value, probability=stop.probability, flip=stop.flip if leveled else True)
    met = (first.nan_player < 0) & goal.met(told, 0, True)
    second = start_phase(game, ~everybody if insertion else first.shown, first.shown)
    if not eager or bool(met):
        most = jnp.where(met, jnp.sum(first.shown), -1)  # -1: there is no phase two, not even its start
        second = run(second, goal, INSERTION if insertion else DELETION, num_players, most, before=first.step)
    return without_gradient(
        Discrimination(
            removed=first.order,
            needed=second.order,
            num_removed=jnp.maximum(first.step, 0),
            num_needed=jnp.maximum(second.step, 0),
            kept=first.shown,
            flipped=jnp.asarray(told.leads) & (first.nan_player < 0),
            removing=two_classes(first),
            needing=two_classes(second),
            num_evaluations=first.num_evaluations + second.num_evaluations,
            nan_player=jnp.where(first.nan_player >= 0, first.nan_player, second.nan_player),
            insertion=insertion,
        )
    )
