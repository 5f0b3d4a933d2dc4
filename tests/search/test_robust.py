"""Groups that hold in several games, against brute force over all groups."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.games.base import as_game
from jaxmoxi.search import likely
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.panel import Panel
from jaxmoxi.search.robust import wilson_interval
from jaxmoxi.types import Stop
from support.games import ThresholdGame, table_game
from support.search import TableGame, any_game, everybody, number


def met(tables, insertion):
    """bool[N, 2^P]: in which games each group is enough."""
    groups = everybody(int(np.log2(len(tables[0]))))
    shown = (groups if insertion else ~groups) @ 2 ** np.arange(groups.shape[1])
    return groups, np.stack([(table[shown] > 0) == insertion for table in tables])


def some_games(num_players, seed, count=4, bias=-0.1):
    return zip(*(any_game(num_players, 100 * seed + k, bias) for k in range(count)), strict=True)


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("hold", [1.0, 0.7, 0.25])
def test_of_nine_players_it_is_the_smallest_that_holds(hold, insertion):
    best, smaller = [], []
    for seed in range(6):
        vs, tables = some_games(9, seed)
        groups, enough = met(tables, insertion)
        found = search.robust_group(vs, 9, insertion=insertion, hold=hold)
        at = int(np.flatnonzero((groups == np.asarray(found.group)).all(1))[0])
        assert found.held.tolist() == enough[:, at].tolist()
        assert float(found.holds) == enough[:, at].mean() >= hold
        best.append(groups[enough.mean(0) >= hold].sum(1).min())
        smaller.append(int(found.size))
        assert int(found.num_evaluations) <= 4 * 512
    assert smaller == best


@pytest.mark.parametrize("insertion", [True, False])
def test_with_a_small_budget_it_holds_and_nobody_can_be_taken_away(insertion):
    for seed in range(8):
        vs, tables = some_games(8, seed, count=5)
        groups, enough = met(tables, insertion)
        for hold in (1.0, 0.6):
            found = search.robust_group(vs, 8, insertion=insertion, hold=hold, budget=1)
            share = dict(zip(map(bytes, groups), enough.mean(0), strict=True))
            group = np.asarray(found.group)
            assert share[bytes(group)] >= hold
            assert int(found.size) >= groups[enough.mean(0) >= hold].sum(1).min()
            for player in np.flatnonzero(group):
                assert share[bytes(group & (np.arange(8) != player))] < hold


def many_players(seed=0, count=6):
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.5, size=90)
    return [
        ThresholdGame(jnp.asarray((weights * rng.uniform(0.5, 1.5, 90)).astype(np.float32)), jnp.float32(-20))
        for _ in range(count)
    ]


def panel_of(games, num_players):
    return Panel([Oracle(as_game(v), num_players, goal=Stop(flip=True)) for v in games])


@pytest.mark.parametrize("hold", [1.0, 0.6])
def test_of_many_players_it_starts_from_the_likely_ones(hold):
    """The group still holds, and nobody can be taken away; with exchanges it is about as small as any."""
    games = many_players()
    found = search.robust_group(games, 90, hold=hold, budget=1)
    assert float(found.holds) >= hold
    group = np.asarray(found.group)
    for player in np.flatnonzero(group):
        fewer = jnp.asarray(group & (np.arange(90) != player))[None]
        assert np.mean([v.readout(fewer).leads[0] for v in games]) < hold
    panel = panel_of(games, 90)
    start = likely.first_that_hold(panel, 6, likely.likely_order(panel, 6, None))
    assert panel.met(start).all()
    assert start.sum() < 45  # an order that told nothing would need most of the players
    longer = search.robust_group(games, 90, hold=hold, budget=8000)
    assert int(longer.size) <= int(found.size) < 45


def test_the_second_draw_is_about_groups_as_they_will_be():
    """Likely players in sizes around the one that is enough, and not the same ones each time."""
    asked = []
    panel = panel_of(many_players(), 90)
    scores = panel.scores
    panel.scores = lambda numbers, groups: asked.append(groups) or scores(numbers, groups)
    order = likely.likely_order(panel, 6, None)
    broad, near = asked
    assert broad.shape == near.shape == (8 * 90, 90)
    np.testing.assert_array_equal(broad[:360], ~broad[360:])
    enough = likely.first_that_hold(panel, 6, order).sum()
    assert near.sum(1).max() <= 2 * enough < broad.sum(1).max()
    assert near[:, order[:5]].mean() > 2 * near[:, order[-45:]].mean()
    assert near[:, order[enough:]].any(0).mean() > 0.5


def test_an_order_is_cut_where_it_is_first_enough():
    """Of 64 players the first 10 to 15 are enough, fewer and 16 to 49 are not, and 50 are again."""

    class Sizes(Panel):
        def __init__(self):
            pass

        def met(self, group):
            return np.array([10 <= group.sum() < 16 or group.sum() >= 50])

    order = np.random.default_rng(0).permutation(64)
    found = likely.first_that_hold(Sizes(), 1, order)
    assert np.flatnonzero(found).tolist() == sorted(order[:10].tolist())


def test_neighbours_are_expected_to_matter_alike():
    """A square of a grid decides, and each game has noise of its own: with the borders the square is found."""
    side, seen = 10, []
    inside = np.zeros((side, side))
    inside[3:6, 4:7] = 1
    borders = np.array(jm.region_adjacency(jnp.arange(side * side).reshape(side, side), side * side))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        noise = rng.normal(scale=1.5, size=(8, side * side))
        games = [ThresholdGame(jnp.asarray(2 * inside.ravel() + n, jnp.float32), jnp.float32(-6)) for n in noise]
        hits = []
        for told in (None, borders):
            order = likely.likely_order(panel_of(games, side * side), len(games), told)
            hits.append(inside.ravel()[order[:9]].sum())
        seen.append(hits)
    alone, together = np.mean(seen, axis=0)
    assert together > alone + 1


def test_the_diffusion_kernel():
    """Against the series of exp(-t L); no time is no kernel, and much time makes all players of a piece alike."""
    borders = np.array(jm.region_adjacency(jnp.arange(9).reshape(3, 3), 9))
    near = (borders > 0).astype(float)
    scaled = (np.diag(near.sum(0)) - near) * 4 / near.sum(0).mean()
    np.testing.assert_allclose(likely.diffusion(borders, 0.7), scipy.linalg.expm(-0.7 * scaled), atol=1e-9)
    np.testing.assert_allclose(likely.diffusion(borders, 0.0), np.eye(9), atol=1e-9)
    np.testing.assert_allclose(likely.diffusion(borders, 1e3), np.full((9, 9), 1 / 9), atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_infinite_payoffs_are_ranked():
    """The logarithm of a probability may be -inf for all groups but a few."""
    needs = np.zeros((4, 30), bool)
    needs[:, [3, 7, 11]] = True
    needs[np.arange(4), 20 + np.arange(4)] = True

    def game(need):
        return lambda masks: jnp.where((masks | ~need).all(1), 1.0, -jnp.inf)

    games = [game(jnp.asarray(need)) for need in needs]
    found = search.robust_group(games, 30, value=0.5)
    assert np.flatnonzero(found.group).tolist() == [3, 7, 11, 20, 21, 22, 23]
    one = search.minimal_group(games[1], 30, value=0.5)
    np.testing.assert_array_equal(one.group, needs[1])
    order = search.order_within(games[1], 30, budget=300)
    assert set(np.asarray(order.order[:4]).tolist()) == {3, 7, 11, 21}


def test_the_smallest_group_grows_with_the_share():
    for seed in range(3):
        vs, _ = some_games(7, seed)
        sizes = [int(search.robust_group(vs, 7, hold=hold).size) for hold in (0.25, 0.5, 0.75, 1.0)]
        assert sizes == sorted(sizes)


def test_with_one_game_it_is_the_minimal_group():
    for seed in range(4):
        v, _ = any_game(8, seed)
        found, want = search.robust_group([v], 8), search.minimal_group(v, 8)
        np.testing.assert_array_equal(found.group, want.group)
        assert int(found.num_evaluations) == int(want.num_evaluations)
        assert found.searched.tolist() == [True]


def test_a_counterexample_joins_the_games_searched():
    """The second game needs player 3 as well; the third says nothing that the first does not."""
    weights = [[4.0, 3, 0, 0], [4.0, 3, 0, 6], [4.0, 3, 0, 0]]
    vs = [ThresholdGame(jnp.asarray(w), jnp.float32(b)) for w, b in zip(weights, (-6.5, -12.5, -6.0), strict=True)]
    found = search.robust_group(vs, 4, budget=1)
    assert np.flatnonzero(found.group).tolist() == [0, 1, 3]
    assert found.searched.tolist() == [True, True, False]
    assert np.flatnonzero(search.robust_group(vs, 4, hold=0.6).group).tolist() == [0, 1]
    assert int(search.robust_group(vs, 4, value=-20.0).size) == 0


def test_games_that_were_not_searched_judge():
    games = [ThresholdGame(jnp.array([3.0, 2.0, 1.0]), jnp.float32(b)) for b in (-2.5, -2.0, -0.5, -4.5)]
    found = search.robust_group(games[:2], 3, unseen=games[2:])
    assert found.group.tolist() == [True, False, False]
    assert float(found.unseen) == 0.5
    assert found.stability.leads.tolist() == [True, False]
    np.testing.assert_allclose(found.stability.values, [2.5, -1.5])
    np.testing.assert_allclose(found.interval, wilson_interval(1, 2))
    none = search.robust_group(games[:2], 3)
    assert none.unseen is none.interval is none.stability is None
    level = search.robust_group(games[:2], 3, probability=0.9, unseen=games[2:])
    assert float(level.unseen) == 0.5  # of the level, not of the lead
    with pytest.warns(UserWarning, match=r"numbers \[1\] of unseen the goal is missed even with all players visible"):
        search.robust_group(games[:2], 3, unseen=[games[2], ThresholdGame(jnp.ones(3), jnp.float32(-9))])


def test_wilsons_interval():
    """Against published values: 8 of 10 is [0.490, 0.943], none of 10 is [0, 0.278]."""
    np.testing.assert_allclose(wilson_interval(8, 10), [0.4902, 0.9433], atol=1e-4)
    np.testing.assert_allclose(wilson_interval(0, 10), [0, 0.2775], atol=1e-4)
    np.testing.assert_allclose(wilson_interval(10, 10), [0.7225, 1], atol=1e-4)


def test_where_everybody_is_not_enough_a_group_may_be():
    table = np.full(16, -1, np.float32)
    table[[1, 3]] = [-0.5, 1]
    vs = [TableGame(jnp.asarray(table)), TableGame(jnp.asarray(table * 2))]
    with pytest.warns(UserWarning, match=r"numbers \[0, 1\] of vs the goal is missed even with all players visible"):
        found = search.robust_group(vs, 4)
    assert number(found.group) == 3
    with pytest.raises(jm.InputError, match=r"reaches the goal in 2 of the 2 games.*in 0: not in those .* \[0, 1\]"):
        search.robust_group(vs, 4, value=5.0)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    v, w = (any_game(4, seed)[0] for seed in (0, 1))
    for wrong in (0.0, 1.5, -1):
        with pytest.raises(jm.InputError, match="hold is a share of the games, above 0 and at most 1"):
            search.robust_group([v], 4, hold=wrong)
    with pytest.raises(jm.InputError, match="at least one value function"):
        search.robust_group([], 4)
    with pytest.raises(jm.InputError, match="expected vs as a list"):
        search.robust_group(v, 4)
    with pytest.raises(jm.InputError, match=r"numbers \[1\] of unseen are among vs"):
        search.robust_group([v], 4, unseen=[w, v])
    with pytest.raises(jm.InputError, match="this value function cannot tell"):
        search.robust_group([table_game(4)[0]] * 2, 4)
    with pytest.raises(jm.NaNValueError, match=r"value function 1 returned NaN for the group \[0, 1, 2, 3\]"):
        search.robust_group([v, TableGame(w.table.at[15].set(jnp.nan))], 4)


def test_of_ten_players_it_is_the_smallest_even_where_single_players_say_nothing():
    groups = everybody(10)
    table = np.where((groups.sum(1) == 10) | ((groups.sum(1) == 2) & groups[:, 0] & groups[:, 1]), 1.0, -1.0)
    order = groups @ 2 ** np.arange(10)
    tables = [table[np.argsort(order)] + np.float32(1e-3 * k) for k in range(2)]
    found = search.robust_group([TableGame(jnp.asarray(t, jnp.float32)) for t in tables], 10)
    assert np.flatnonzero(found.group).tolist() == [0, 1]
    assert int(found.num_evaluations) <= 2 * 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold": "1"}, "hold is a share of the games, above 0 and at most 1; got '1'"),
        ({"hold": None}, "hold is a share of the games, above 0 and at most 1; got None"),
        ({"budget": float("nan")}, "the budget is a number of evaluations, at least 1; got nan"),
        ({"budget": 2.5}, "the budget is a number of evaluations, at least 1; got 2.5"),
        ({"budget": "9"}, "the budget is a number of evaluations, at least 1; got '9'"),
        ({"batch_size": 1.5}, "batch_size must be at least 1"),
        ({"stop": "class"}, "expected the goal as stop=Stop"),
        ({"probability": "0.5"}, "expected probability as a number; got '0.5'"),
        ({"insertion": "no"}, "expected insertion of True"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_number_and_no_goal_is_refused(options, message):
    vs, _ = some_games(3, 0)
    with pytest.raises(ValueError, match=message):
        search.robust_group(list(vs), 3, **options)
    assert int(search.robust_group(list(vs), 3, budget=np.inf, connected=np.False_).size) >= 1
