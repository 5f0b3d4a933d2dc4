"""Compiling a search ahead of the first image."""

from __future__ import annotations

from collections.abc import Callable

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, memory_advice
from jaxmoxi.guards import deliberate
from jaxmoxi.moxi.greedy import compile_stage, greedy_init, last_size, stages_of
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import Stop


@deliberate
def compile_greedy(
    v: ValueFn,
    num_players: int,
    *,
    insertion: bool = True,
    stop: Stop | None = None,
    batch_size: int | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> int:
    """Compiles what `greedy_insertion` (`greedy_deletion`) may need, and runs nothing: the number of programs.

    One model and one kind of players need this once: searches of other images then start at once, in this process, and
    in others that share JAX's compilation cache (`jax_compilation_cache_dir`).

    stop:     of that search. Only its `size` spares programs: nobody knows before where a level is met.
    callback: called on the host with (programs that are compiled, all programs), for a progress bar.

    The other arguments are those of the search that follows. Raises what it raises, and InputError inside `jit`.
    """
    game, stop = as_game(v), stop or Stop()
    state = greedy_init(game, num_players, insertion=insertion)
    if not is_concrete((game, state)):
        raise InputError(
            "compile_greedy compiles ahead of a search outside jit and vmap; a program of yours that holds the search "
            "compiles it whole: jax.jit(...).lower(...).compile()"
        )
    stop.check(state.start)
    check_batch_size(batch_size)
    stages = stages_of(game, num_players, insertion, last_size(stop, num_players))
    for i, stage in enumerate(stages):
        with memory_advice(game, num_players, stage.max_visible, batch_size):
            compile_stage(game, state, stop.as_arrays(), batch_size, stage)
        if callback is not None:
            callback(i + 1, len(stages))
    return len(stages)
