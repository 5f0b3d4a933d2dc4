import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.base import as_game
from jaxmoxi.games.hardware import Hardware, planned_for
from jaxmoxi.moxi.stages import Stage, choose_chunk, plan_stages
from support.games import Notes, TracedGame

PLAYERS = 60


def fresh(seed=0):
    """A sized game, and the sizes for which it has been traced, which stands for compiling."""
    notes = Notes()
    weights = jnp.asarray(np.random.default_rng(seed).permutation(PLAYERS), jnp.float32)
    return TracedGame(weights, notes), notes


@pytest.mark.parametrize("insertion", [True, False])
def test_a_search_that_is_compiled_ahead_compiles_nothing(insertion):
    v, notes = fresh()
    told = []
    count = jm.compile_greedy(v, PLAYERS, insertion=insertion, batch_size=16, callback=lambda *n: told.append(n))
    stages = plan_stages(PLAYERS, insertion=insertion)
    assert count == len(stages) > 1
    assert told == [(i + 1, count) for i in range(count)]
    before = len(notes)
    search = jm.greedy_insertion if insertion else jm.greedy_deletion
    result = search(v, PLAYERS, batch_size=16)
    search(v, PLAYERS, batch_size=16, callback=lambda info: None)
    assert len(notes) == before
    assert int(result.num_steps) == PLAYERS


def test_a_size_spares_the_stages_behind_it():
    v, _ = fresh()
    assert jm.compile_greedy(v, PLAYERS, stop=jm.Stop(size=3), batch_size=16) == 1


def test_inside_jit_there_is_nothing_to_compile_ahead():
    v, _ = fresh()
    with pytest.raises(ValueError, match="compile_greedy compiles ahead of a search outside jit and vmap"):
        jax.jit(lambda v: jm.compile_greedy(v, PLAYERS))(as_game(v))


def test_on_an_accelerator_the_next_stage_is_compiled_by_another_thread_while_one_runs(monkeypatch):
    seen = []
    run = jm.moxi.greedy.run_stage

    def watched(game, state, limits, goal, batch_size, stage: Stage):
        seen.append((int(goal), stage.steps, threading.current_thread() is threading.main_thread()))
        return run(game, state, limits, goal, batch_size, stage)

    monkeypatch.setattr(jm.moxi.greedy, "run_stage", watched)
    v, _ = fresh(1)
    with planned_for(Hardware("gpu", free_bytes=10**9)):
        stages = plan_stages(PLAYERS, insertion=True)
        result = jm.greedy_insertion(v, PLAYERS)
    assert len(stages) > 1
    assert [s for s in seen if s[2]] == [(stage.steps, stage.steps, True) for stage in stages]
    assert [s for s in seen if not s[2]] == [(-1, stage.steps, False) for stage in stages[1:]]
    np.testing.assert_array_equal(result.order, jm.greedy_insertion(v, PLAYERS).order)


def test_an_error_in_the_thread_that_compiles_is_the_run_s_own(monkeypatch):
    def broken(masks, *, max_visible=None):
        if max_visible == PLAYERS:
            raise ZeroDivisionError("this size is no good")
        return masks.sum(1) * 1.0

    broken.sized = True
    with (
        planned_for(Hardware("gpu", free_bytes=10**9)),
        pytest.raises(ZeroDivisionError, match="this size is no good"),
    ):
        jm.greedy_insertion(broken, PLAYERS)


def test_chunks_on_accelerators_are_of_eights():
    v, _ = fresh()
    game = as_game(v)
    for counts in (range(1, 4), range(30, 38), range(41, 60)):
        with planned_for(Hardware("tpu", free_bytes=10**9)):
            assert choose_chunk(game, PLAYERS, counts, None, PLAYERS) % 8 == 0
            assert choose_chunk(game, PLAYERS, counts, None, None) % 8 == 0
        assert choose_chunk(game, PLAYERS, counts, 5, PLAYERS) == min(5, counts[-1])
        assert choose_chunk(game, PLAYERS, counts, None, PLAYERS) <= counts[-1]
