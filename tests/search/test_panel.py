"""Games that are asked together answer as each of them does alone, for the same evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.base import Game
from jaxmoxi.pytrees import record
from jaxmoxi.search import panel as panels
from jaxmoxi.search.oracle import Oracle, reader_of
from jaxmoxi.search.panel import Panel
from jaxmoxi.types import Stop
from support.search import TableGame, any_game, everybody, small_model

GOAL = Stop(flip=True)


@record
class OwnGame(Game):
    """A game of this package: it may be asked together with others."""

    table: jax.Array

    def readout(self, masks, *, max_visible=None):
        return TableGame(self.table).readout(masks)


def oracles(games, num_players, insertion=True):
    as_games = [jm.games.base.as_game(v) for v in games]
    return [Oracle(v, num_players, goal=GOAL, insertion=insertion, reader=reader_of(v, GOAL)) for v in as_games]


@pytest.fixture
def batches(monkeypatch):
    """How many pairs each batch of several games had."""
    seen, read = [], Panel._read

    def counted(self, stack, one, numbers, masks, part, most):
        seen.append(len(part))
        return read(self, stack, one, numbers, masks, part, most)

    monkeypatch.setattr(panels.Panel, "_read", counted)
    return seen


@pytest.mark.parametrize("insertion", [True, False])
def test_a_group_in_many_games_is_one_batch(insertion, batches):
    games = [OwnGame(any_game(5, seed)[0].table) for seed in range(6)]
    groups = everybody(5)[[3, 17, 3, 30]]
    panel, alone = Panel(oracles(games, 5, insertion)), oracles(games, 5, insertion)
    for numbers, rows, new in (([1, 4], groups[:1], 2), (range(6), groups[:1], 4), ([5, 0, 2], groups, 6)):
        del batches[:]
        scores, met = panel.ask(numbers, rows)
        want = [alone[i].ask(rows) for i in numbers]
        np.testing.assert_array_equal(scores, [x for x, _ in want])
        np.testing.assert_array_equal(met, [x for _, x in want])
        assert batches == [new]
        assert panel.count == sum(oracle.count for oracle in alone)
    np.testing.assert_array_equal(panel.met(groups[0]), panel.ask(range(6), groups[:1])[1][:, 0])


def test_each_group_in_a_game_of_its_own(batches):
    games = [OwnGame(any_game(5, seed)[0].table) for seed in range(3)]
    groups, numbers = everybody(5)[[3, 9, 3, 30, 3]], np.array([2, 0, 2, 1, 0])
    panel, alone = Panel(oracles(games, 5)), oracles(games, 5)
    want = [alone[i].ask(row[None])[0][0] for i, row in zip(numbers, groups, strict=True)]
    np.testing.assert_array_equal(panel.scores(numbers, groups), want)
    assert batches == [4]  # one of the five is asked twice
    assert panel.count == 4


def test_games_of_images_agree_with_themselves(batches):
    """Games of pixels are one batch, those of tokens another, cut by size; a sharded one is asked by itself."""
    model, image = small_model()
    regions = jm.grid_regions(8, 8, rows=2, cols=2)
    removals = jm.games.removals(
        jax.random.key(0), model, image, 1, regions, count=6, kinds=("tokens", "mean", "noise"), payoff="margin"
    )
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    spread = jm.shard_coalitions(removals[1], mesh)
    games = [*removals, spread, removals[1]]
    groups = everybody(4)
    scores, met = Panel(oracles(games, 4)).ask(range(8), groups)
    assert sorted(batches) == [2 * 16, 5 * 16]
    for i, v in enumerate(games):
        told = jm.games.evaluation.readouts(v, jnp.asarray(groups))
        np.testing.assert_allclose(scores[i], told.values, atol=1e-5)
        np.testing.assert_array_equal(met[i], told.leads)


def test_a_users_own_code_is_asked_alone(batches):
    tables = [any_game(4, seed)[1] for seed in range(3)]
    rows = 2 ** np.arange(4)

    class Called:
        foreign = True

        def __init__(self, table):
            self.table = table

        def __call__(self, masks):
            return self.readout(masks).values

        def readout(self, masks):
            values = jax.pure_callback(
                lambda m: self.table[np.asarray(m) @ rows], jax.ShapeDtypeStruct(masks.shape[:1], jnp.float32), masks
            )
            return jm.types.Readout(values, values > 0, None)

    scores, _ = Panel(oracles([Called(table) for table in tables], 4)).ask(range(3), everybody(4))
    np.testing.assert_array_equal(scores, [table[everybody(4) @ rows] for table in tables])
    assert batches == []


def test_a_nan_names_its_game():
    games = [OwnGame(any_game(4, seed)[0].table) for seed in range(3)]
    games[2] = OwnGame(games[2].table.at[5].set(jnp.nan))
    members = oracles(games, 4)
    for i, oracle in enumerate(members):
        oracle.whose = f"value function {i}"
    with pytest.raises(jm.NaNValueError, match=r"value function 2 returned NaN for the group \[0, 2\]"):
        Panel(members).ask(range(3), np.array([[True, False, True, False]]))
