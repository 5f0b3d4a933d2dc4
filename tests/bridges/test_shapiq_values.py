"""Interaction values as shapiq's, and back."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.bridges import shapiq_values

P = 5
TABLE = np.random.default_rng(0).normal(size=1 << P).astype(np.float32)
SHARED = [name for name in jm.interactions.INDICES if name != "OR"]


@pytest.fixture(scope="module")
def shapiq():
    return pytest.importorskip("shapiq")


def exact(index="k-SII", order=2):
    return jm.interactions.from_table(jnp.asarray(TABLE), index=index, order=order)


def shapiq_exact(shapiq, index, order):
    class Table(shapiq.Game):
        def __init__(self):
            super().__init__(P, normalize=False)

        def value_function(self, coalitions):
            return TABLE.astype(np.float64)[np.asarray(coalitions) @ (1 << np.arange(P))]

    return shapiq.ExactComputer(Table())(index, order=order)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("index", SHARED)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # shapiq's own, of chaining and the empty set
def test_exact_values_are_shapiqs_own_in_all_that_they_say(shapiq, index, order):
    if jm.interactions.INDICES[index].largest is not None and order > 1:
        pytest.skip("of single players")
    mine, theirs = jm.to_shapiq(exact(index, order)), shapiq_exact(shapiq, index, order)
    top = P if index == "Moebius" else order  # shapiq always gives all of them
    assert (mine.index, mine.max_order, mine.n_players) == (theirs.index, order, P)
    assert theirs.max_order == top
    assert (mine.estimated, mine.estimation_budget) == (theirs.estimated, theirs.estimation_budget) == (False, None)
    assert mine.baseline_value == pytest.approx(theirs.baseline_value, abs=1e-5)
    shared = {s for s in theirs.interactions if 1 <= len(s) <= order}
    assert {s for s in mine.interactions if s} == shared
    for members in shared:
        assert mine[members] == pytest.approx(theirs[members], abs=2e-5), members
    if mine.min_order == 0:
        assert mine[()] == pytest.approx(theirs[()], abs=1e-5)
    else:
        assert () not in mine.interactions
        assert mine.index in ("SII", "BII", "BV")
    back = jm.from_shapiq(theirs)
    np.testing.assert_allclose(back.top(99).values, jm.from_shapiq(theirs).top(99).values)
    assert back.num_evaluations == 1 << P
    for row, value in zip(np.asarray(back.sets), np.asarray(back.values), strict=True):
        if (row >= 0).sum() <= order:
            assert float(exact(index, order).of(*row[row >= 0].tolist())) == pytest.approx(value, abs=2e-5)
    assert float(back.baseline) == pytest.approx(float(exact(index, order).baseline), abs=1e-5)


@pytest.mark.parametrize("index", SHARED)
def test_there_and_back_is_the_same(shapiq, index):
    order = jm.interactions.INDICES[index].largest or 3
    x = exact(index, order)
    back = jm.from_shapiq(jm.to_shapiq(x))
    assert (back.index, back.order, back.num_players, back.num_evaluations) == (index, order, P, 1 << P)
    for name in ("sets", "values", "baseline"):
        np.testing.assert_array_equal(getattr(back, name), getattr(x, name))
        assert getattr(back, name).dtype == getattr(x, name).dtype
    assert back.standard_errors is None


@pytest.mark.parametrize(("changes", "says"), [
    ({"num_evaluations": 20}, (True, 20)),
    ({"num_evaluations": jnp.int32(1 << P), "standard_errors": jnp.ones(15)}, (True, 1 << P)),
    ({"num_evaluations": 0}, (True, None)),
    ({}, (False, None)),
])  # fmt: skip
def test_an_estimate_is_called_one_with_its_budget(shapiq, changes, says):
    theirs = jm.to_shapiq(exact().replace(**changes))
    assert (theirs.estimated, theirs.estimation_budget) == says
    assert jm.from_shapiq(theirs).num_evaluations == (says[1] or (0 if says[0] else 1 << P))


def test_estimates_of_shapiq_come_over(shapiq):
    game = jm.as_shapiq_game(jax.tree_util.Partial(lambda t, m: t[m @ (1 << jnp.arange(P))], jnp.asarray(TABLE)), P)
    for estimator in (
        shapiq.KernelSHAPIQ(P, max_order=2, index="k-SII", random_state=0),
        shapiq.RegressionFBII(P, max_order=2, random_state=0),
        shapiq.SHAPIQ(P, max_order=3, index="STII", random_state=0),
    ):
        theirs = estimator.approximate(30, game)
        x = jm.from_shapiq(theirs)
        assert (x.index, x.order, x.num_players) == (theirs.index, theirs.max_order, P)
        assert x.num_evaluations == theirs.estimation_budget > 0
        assert float(x.of(3, 1)) == pytest.approx(theirs[(1, 3)], rel=1e-6)
        assert float(x.baseline) == pytest.approx(theirs[()], rel=1e-6, abs=1e-7)
        again = jm.to_shapiq(x)
        assert again.interactions == pytest.approx(dict(theirs.interactions), rel=1e-6, abs=1e-7)
        assert repr(again).split("baseline")[0] == repr(theirs).split("baseline")[0]


@pytest.mark.parametrize("plot", ["network", "upset", "si_graph", "bar", "force", "waterfall"])
def test_shapiqs_plots_draw_it(shapiq, plot):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    names = {"feature_names": [str(i) for i in range(P)]} if plot in ("force", "waterfall") else {}
    graph = plot in ("network", "si_graph")  # which need single players, and others beside them
    for x in (exact(), exact("SII", 3)) if graph else (exact("FBII", 3).top(6), exact("SV", 1)):
        pyplot.close("all")  # they draw on the current figure, whatever it is
        theirs = jm.to_shapiq(x)
        draw = getattr(shapiq, f"{plot}_plot")
        assert draw([theirs] if plot == "bar" else theirs, show=False, **names) is not None
        assert pyplot.gcf().axes
    pyplot.close("all")


def test_of_many_players_a_few_sets(shapiq):
    x = exact().top(4).replace(num_players=1000, num_evaluations=20_000)
    theirs = jm.to_shapiq(x)
    assert (theirs.estimated, theirs.estimation_budget, theirs.n_players) == (True, 20_000, 1000)
    assert len(theirs.interactions) == 5
    assert jm.from_shapiq(theirs).num_players == 1000


def test_what_cannot_go_over_is_named(shapiq):
    with pytest.raises(jm.InputError, match="shapiq has no index 'OR'; of those here it has SV, BV, SII"):
        jm.to_shapiq(exact("OR"))
    batch = jax.vmap(lambda t: jm.interactions.from_table(t))(jnp.asarray(TABLE).reshape(2, -1))
    with pytest.raises(jm.InputError, match=r"interactions of one image, values \[M\]; got values \[2, 10\]"):
        jm.to_shapiq(batch)
    jm.to_shapiq(jax.tree.map(lambda leaf: leaf[0] if jnp.ndim(leaf) else leaf, batch))
    with pytest.raises(jm.InputError, match="expected a shapiq.InteractionValues; got dict"):
        jm.from_shapiq({(0, 1): 1.0})

    def theirs(interactions, index="SII"):
        return shapiq.InteractionValues(interactions, index=index, max_order=2, n_players=3, min_order=1)

    with pytest.raises(jm.InputError, match="jaxmoxi has no index 'kADD-SHAP'; of shapiq's it has SV"):
        jm.from_shapiq(theirs({(0, 1): 1.0}, "kADD-SHAP"))
    for members in ((0, 3), (0, 1, 2), (-1, 0), (1, 1)):
        with pytest.raises(jm.InputError, match=r"sets of up to 2 different players of 0 \.\. 2; got the set \("):
            jm.from_shapiq(theirs({(0,): 1.0, members: 1.0}))


def test_without_shapiq_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    for function, argument in ((shapiq_values.to_shapiq, exact()), (shapiq_values.from_shapiq, None)):
        with pytest.raises(ImportError, match=r"needs shapiq: pip install 'jaxmoxi\[shapiq\]'"):
            function(argument)
