"""Groups that lie together: enough, in few pieces, and against brute force over all groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.regions.pieces import count_pieces, neighbour_lists
from jaxmoxi.search import Connected
from support.games import ThresholdGame, table_game
from support.search import TableGame, everybody, small_model

SIDE = 3
NEAR = np.asarray(jm.region_adjacency(jm.grid_regions(SIDE, SIDE, rows=SIDE, cols=SIDE), SIDE**2)) > 0


def some_game(seed, players=SIDE**2):
    """A noisy additive game whose class leads with several players at least; everybody is enough, nobody is not."""
    rng = np.random.default_rng(seed)
    groups = everybody(players)
    weights = rng.gamma(1.0, size=players)
    values = groups @ weights + 0.3 * rng.normal(size=len(groups)) - 0.6 * weights.sum()
    values[0], values[-1] = -1, 1
    table = np.zeros(2**players, np.float32)
    table[groups @ 2 ** np.arange(players)] = values
    return TableGame(jnp.asarray(table)), table


def met(table, insertion):
    """(groups bool[2^P, P], whether each is enough)."""
    groups = everybody(int(np.log2(len(table))))
    shown = (groups if insertion else ~groups) @ 2 ** np.arange(groups.shape[1])
    return groups, (table[shown] > 0) == insertion


@pytest.mark.parametrize("insertion", [True, False])
def test_with_a_budget_for_it_the_group_is_the_smallest_in_so_many_pieces(insertion):
    lists = neighbour_lists(NEAR)
    for seed in range(3):
        v, table = some_game(seed)
        groups, enough = met(table, insertion)
        pieces = count_pieces(groups, lists)
        for most in (1, 2):
            wish = Connected(NEAR, max_pieces=most, extra=0.0)
            found = search.minimal_group(v, 9, insertion=insertion, connected=wish, budget=2000)
            assert int(found.size) == groups[enough & (pieces <= most)].sum(1).min()
            assert int(found.pieces) <= most


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([1, 60, None]),
)
def test_whatever_the_budget_it_is_enough_in_few_pieces_and_no_player_can_go(seed, insertion, most, extra, budget):
    v, table = some_game(seed)
    groups, enough = met(table, insertion)
    lists = neighbour_lists(NEAR)
    free = search.minimal_group(v, 9, insertion=insertion, budget=budget)
    found = search.minimal_group(
        v, 9, insertion=insertion, budget=budget, connected=Connected(NEAR, max_pieces=most, extra=extra)
    )
    group = np.asarray(found.group)
    at = int(np.flatnonzero((groups == group).all(1))[0])
    assert bool(found.enough) == enough[at] == True  # noqa: E712
    pieces = count_pieces(group[None], lists)[0]
    assert int(found.pieces) == pieces <= most
    before = count_pieces(np.asarray(free.group)[None], lists)[0]
    assert pieces <= max(before, 1)
    for player in np.flatnonzero(group):
        less = group.copy()
        less[player] = False
        worth = enough[np.flatnonzero((groups == less).all(1))[0]]
        assert not worth or count_pieces(less[None], lists)[0] > pieces


def test_a_group_that_lies_together_anyway_is_left_alone():
    weights = jnp.zeros(9).at[jnp.array([0, 1, 4])].set(jnp.array([3.0, 2.0, 2.0]))
    v = ThresholdGame(weights, jnp.float32(-6.5))
    free = search.minimal_group(v, 9)
    found = search.minimal_group(v, 9, connected=Connected(NEAR))
    assert np.flatnonzero(found.group).tolist() == np.flatnonzero(free.group).tolist() == [0, 1, 4]
    assert int(found.pieces) == 1
    assert free.pieces is None
    assert int(found.num_evaluations) == int(free.num_evaluations)


def test_fewer_pieces_are_bought_within_extra_and_the_most_pieces_are_kept_at_any_price():
    corners = jnp.zeros(9).at[jnp.array([0, 2, 6, 8])].set(1.0)
    v = ThresholdGame(corners, jnp.float32(-3.5))  # all four corners: joining two takes one more, all takes three
    price = {
        (3, 0.0): (3, 5), (3, 0.25): (3, 5), (4, 0.2): (4, 4), (4, 0.5): (2, 6), (4, 0.75): (1, 7), (2, 0.0): (2, 6),
        (1, 0.0): (1, 7),
    }  # fmt: skip
    for (most, extra), (pieces, size) in price.items():
        found = search.minimal_group(v, 9, connected=Connected(NEAR, max_pieces=most, extra=extra), budget=500)
        assert (int(found.pieces), int(found.size)) == (pieces, size), (most, extra)


def test_games_of_images_know_their_neighbours():
    model, image = small_model()
    regions = jm.grid_regions(8, 8, rows=2, cols=2)
    for v in (
        jm.token_value_fn(model, image, 1),
        jm.token_value_fn(model, image, 1, regions),
        jm.pixel_value_fn(model.logits, image, 1, regions),
        jm.robust_value_fn([jm.pixel_value_fn(model.logits, image, 1, regions, fill=f) for f in (0.0, "mean")]),
    ):
        near = np.asarray(v.player_borders(4)) > 0
        np.testing.assert_array_equal(near, [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]])
    level = float(v(jnp.ones((1, 4), bool))[0]) - 10.0
    found = search.minimal_group(v, 4, connected=True, value=level)
    assert bool(found.enough)
    moved = jm.games.removals(jax.random.key(1), model, image, 1, regions, count=6, kinds=("mean", "tokens"), shift=1)
    for v in moved:  # as the image stood before it was moved
        np.testing.assert_array_equal(np.asarray(v.player_borders(4)) > 0, near)


def test_in_several_games_it_holds_in_all_of_them():
    lists = neighbour_lists(NEAR)
    fewer = 0
    for seed in range(4):
        vs, tables = zip(*(some_game(100 * seed + i) for i in range(3)), strict=True)
        free = search.robust_group(vs, 9, budget=300)
        found = search.robust_group(vs, 9, budget=300, connected=Connected(NEAR, max_pieces=1))
        group = np.asarray(found.group)
        held = [met(table, True)[1][np.flatnonzero((everybody(9) == group).all(1))[0]] for table in tables]
        assert found.held.tolist() == held == [True] * 3
        assert int(found.pieces) == count_pieces(group[None], lists)[0] == 1
        fewer += count_pieces(np.asarray(free.group)[None], lists)[0] > 1
        assert free.pieces is None
    assert fewer  # the wish did something
    alone = search.robust_group(vs[:1], 9, connected=Connected(NEAR, max_pieces=1))
    same = search.minimal_group(vs[0], 9, connected=Connected(NEAR, max_pieces=1))
    np.testing.assert_array_equal(alone.group, same.group)
    assert int(alone.pieces) == int(same.pieces)


def test_necessary_and_sufficient_groups_lie_together_too():
    weights = jnp.zeros(9).at[jnp.array([0, 2])].set(1.0)
    v = ThresholdGame(weights, jnp.float32(-0.5))  # either corner is enough; only both together are necessary
    free = search.necessary_and_sufficient(v, 9)
    found = search.necessary_and_sufficient(v, 9, connected=Connected(NEAR, max_pieces=1))
    assert np.flatnonzero(free.group).tolist() == [0, 2]
    assert np.flatnonzero(found.group).tolist() == [0, 1, 2]
    assert (int(found.pieces), bool(found.enough)) == (1, True)


def test_where_no_group_lies_together_it_says_so():
    v = ThresholdGame(jnp.ones(4), jnp.float32(-3.5))  # all four, none of which are neighbours
    with pytest.warns(UserWarning, match="at most 3 pieces.*is returned, which has 4"):
        found = search.minimal_group(v, 4, connected=Connected(np.zeros((4, 4))))
    assert (int(found.pieces), int(found.size), bool(found.enough)) == (4, 4, True)


def test_it_is_deterministic_and_counts_what_it_asks():
    v, _ = some_game(3)
    counts = []
    wish = Connected(NEAR, max_pieces=1)
    one = search.minimal_group(v, 9, connected=wish, callback=counts.append)
    other = search.minimal_group(v, 9, connected=wish)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert counts[-1] == int(one.num_evaluations)


def test_errors():
    v, _ = table_game(4)
    near = np.ones((4, 4))
    for wish, said in [
        (True, r"does not tell which players are neighbours.*Connected\(jm.region_adjacency\(regions, 4\)\)"),
        (Connected(near, max_pieces=0), "max_pieces is a number of pieces, at least 1; got 0"),
        (Connected(near, extra=-0.1), "extra is a share of the group's players"),
        (Connected(near, extra=np.inf), "extra is a share"),
        (Connected(np.ones((3, 3))), r"expected neighbours \[4, 4\]"),
    ]:
        for run in (search.minimal_group, lambda v, p, **more: search.robust_group([v, v], p, **more)):
            with pytest.raises(jm.InputError, match=said):
                run(v, 4, value=-9.0, connected=wish)


def test_inside_jit_it_is_refused():
    weights = jnp.ones(4)

    def traced(bias):
        return search.minimal_group(ThresholdGame(weights, bias), 4, connected=Connected(np.ones((4, 4)))).group

    def closed_over(bias):
        return search.minimal_group(lambda masks: masks @ weights + bias, 4, value=0.5,
                                    connected=Connected(np.ones((4, 4)))).group  # fmt: skip

    for run in (traced, closed_over):
        with pytest.raises(jm.InputError, match="connected groups are searched on the host.*outside jit"):
            jax.jit(run)(jnp.float32(-1.0))
