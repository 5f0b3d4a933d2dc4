"""Orders by interactions, against the surrogate searched set by set; curves along them on real images."""

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions.lattice import sets_up_to
from support.interactions import GAMES, game_of, table_of

exact_of = jm.interactions.from_table


def random_result(n, order, index):
    sets = sets_up_to(n, order)
    values = np.random.default_rng(n + order).normal(size=len(sets)).astype(np.float32)
    return jm.interactions.Interactions(
        jnp.asarray(sets), jnp.asarray(values), jnp.float32(0.5), index=index, order=order, num_players=n
    )


def brute_order(x, insertion):
    """Greedy on the surrogate, set by set."""
    sets = [{int(i) for i in row if i >= 0} for row in np.asarray(x.sets)]
    values = np.asarray(x.values, np.float64)

    def worth(coalition):
        counts = [bool(s & coalition) if x.index == "OR" else s <= coalition for s in sets]
        return values[np.flatnonzero(counts)].sum()

    everyone, chosen = set(range(x.num_players)), []
    for _ in everyone:
        free = sorted(everyone - set(chosen))
        groups = [{*chosen, i} for i in free]
        merits = [worth(g) if insertion else -worth(everyone - g) for g in groups]
        chosen.append(free[int(np.argmax(merits))])
    return chosen


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize(
    ("index", "order"), [("SV", 1), ("k-SII", 2), ("STII", 3), ("Moebius", 4), ("OR", 2), ("OR", 3)]
)
def test_the_order_is_greedy_on_the_reconstruction(index, order, insertion):
    x = random_result(6, order, index)
    rows = np.random.default_rng(0).permutation(len(x.values))
    turned = x.replace(sets=x.sets[rows][:, ::-1], values=x.values[rows])
    for each in (x, turned):
        order_found = jm.metrics.interaction_order(each, insertion=insertion)
        np.testing.assert_array_equal(order_found, brute_order(x, insertion))


@pytest.mark.parametrize("insertion", [True, False])
def test_sparse_results_and_pairs_given_a_higher_order(insertion):
    x = random_result(6, 2, "FSII")
    few = x.replace(values=jnp.where(jnp.abs(x.values) > 1, x.values, 0))
    sparse = x.top(int((np.abs(x.values) > 1).sum()))
    wide = x.replace(sets=jnp.pad(x.sets, ((0, 0), (0, 1)), constant_values=-1), order=3)
    for one, other in ((few, sparse), (x, wide)):
        found = [jm.metrics.interaction_order(each, insertion=insertion) for each in (one, other)]
        np.testing.assert_array_equal(*found)


def test_two_players_that_repeat_each_other_are_set_apart():
    def v(masks):
        m = masks.astype(jnp.float32)
        return 3 * jnp.maximum(m[:, 0], m[:, 1]) + m[:, 2] + 4 * m[:, 3] * m[:, 4]

    x = jm.interactions.exact(v, 5, index="Moebius", order=2)
    assert jm.metrics.interaction_order(x).tolist() == [0, 2, 1, 3, 4]  # greedy does not see what 3 and 4 do together
    assert jm.metrics.interaction_order(x, insertion=False).tolist() == [3, 2, 0, 1, 4]


def test_curves_are_those_of_the_true_game():
    v, x = game_of(GAMES[0]), exact_of(GAMES[0], index="k-SII", order=2)
    for curve, plain, insertion in (
        (jm.metrics.second_order_insertion, jm.insertion_curve, True),
        (jm.metrics.second_order_deletion, jm.deletion_curve, False),
    ):
        want = plain(v, jm.metrics.interaction_order(x, insertion=insertion))
        jax.tree.map(np.testing.assert_array_equal, curve(v, x), want)


def test_second_order_beats_first_order_on_images():
    inserted, deleted = [], []
    for table in GAMES:
        v, pairs = game_of(table), exact_of(table, index="k-SII", order=2)
        for x in (exact_of(table, index="SV", order=1), pairs.top(9, size=1), pairs):
            inserted.append(jm.metrics.second_order_insertion(v, x).area)
            deleted.append(jm.metrics.second_order_deletion(v, x).area)
    shapley, singles, pairs = np.reshape(inserted, (-1, 3)).mean(0)
    assert pairs > max(shapley, singles) + 0.01
    shapley, singles, pairs = np.reshape(deleted, (-1, 3)).mean(0)
    assert pairs < min(shapley, singles) - 0.01


def test_an_image_of_196_patches_is_quick_and_goes_under_jit_and_vmap():
    n = 196
    sets = sets_up_to(n, 2)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(2, len(sets))), jnp.float32)

    def order_of(values):
        x = jm.interactions.Interactions(
            jnp.asarray(sets), values, jnp.float32(0), index="FSII", order=2, num_players=n
        )
        return jm.metrics.interaction_order(x)

    both = jax.jit(jax.vmap(order_of))(values)
    one = order_of(values[0])
    start = time.perf_counter()
    one.block_until_ready()
    jax.block_until_ready(order_of(values[0]))
    assert time.perf_counter() - start < 1
    np.testing.assert_array_equal(both[0], one)
    np.testing.assert_array_equal(np.sort(both, axis=1), np.tile(np.arange(n), (2, 1)))


def test_what_adds_up_to_no_game_is_told():
    table = jnp.asarray(table_of(4), jnp.float32)
    for index in ("SII", "BII", "CHII", "Co-Moebius", "SGV", "BGV"):
        with pytest.warns(UserWarning, match=f"the values of {index} do not add up"):
            jm.metrics.interaction_order(exact_of(table, index=index, order=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jm.metrics.interaction_order(exact_of(table, index="SII", order=1))
        for index in ("k-SII", "STII", "FSII", "FBII", "Moebius", "OR"):
            jm.metrics.interaction_order(exact_of(table, index=index, order=2))


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = exact_of(jnp.asarray(table_of(4), jnp.float32), index="k-SII", order=2)
    with pytest.raises(jm.InputError, match="expected x of jaxmoxi.interactions"):
        jm.metrics.interaction_order(x.matrix())
    with pytest.raises(jm.InputError, match="expected one result"):
        jm.metrics.interaction_order(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), x))
    with pytest.raises(jm.InputError, match=r"the value of the set \[2\] in x is NaN"):
        jm.metrics.interaction_order(x.replace(values=x.values.at[2].set(jnp.nan)))
