"""`discriminate` against both phases by trying everything, in plain Python."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.rivals import difference_game
from jaxmoxi.pytrees import record
from jaxmoxi.types import Readout
from support.games import SizedGame, index, lookup, table_game
from support.search import games as image_games
from support.search import tiny_model


@record
class ClassGame:
    """One of three classes, each with a table of logits: it leads where its logit is the highest."""

    tables: jax.Array
    target: jax.Array

    def __call__(self, masks):
        return self.readout(masks).values

    def readout(self, masks):
        logits = jax.vmap(lambda table: lookup(table, masks))(self.tables)
        values = logits[self.target]
        return Readout(values, jnp.argmax(logits, 0) == self.target, jax.nn.softmax(logits, axis=0)[self.target])


def class_games(num_players, seed):
    """(target's game, predicted class's game, tables [3, 2^P]); class 1 leads with everybody, class 0 is the target."""
    tables = np.random.default_rng(seed).normal(size=(3, 2**num_players)).astype(np.float32)
    tables[:, -1] = [0, 2, 1]
    return *(ClassGame(jnp.asarray(tables), jnp.int32(k)) for k in (0, 1)), tables


def brute(t, p, leads, num_players, insertion):
    """(removed, needed or None) by the formulas of the module's head."""
    everyone, removed, needed = set(range(num_players)), [], []
    while not leads(everyone - set(removed)) and len(removed) < num_players:
        left = sorted(everyone - set(removed))
        removed.append(max(left, key=lambda b: t(everyone - {*removed, b}) - p(everyone - {*removed, b})))
    kept = everyone - set(removed)
    if not leads(kept):
        return removed, None
    shown = (lambda chosen: set(chosen)) if insertion else (lambda chosen: kept - set(chosen))
    sign = 1 if insertion else -1
    while leads(shown(needed)) != insertion and len(needed) < len(kept):
        left = sorted(kept - set(needed))
        needed.append(max(left, key=lambda b: sign * t(shown([*needed, b]))))
    return removed, needed


def check(result, t, p, leads, num_players, insertion):
    removed, needed = brute(t, p, leads, num_players, insertion)
    n, everyone = num_players, set(range(num_players))
    kept = everyone - set(removed)
    assert result.removed.tolist() == removed + [-1] * (n - len(removed))
    assert int(result.num_removed) == len(removed)
    assert np.flatnonzero(result.kept).tolist() == sorted(kept)
    assert bool(result.flipped) == (needed is not None) == leads(kept)
    assert result.needed.tolist() == (needed or []) + [-1] * (n - len(needed or []))
    phases = [(result.removing, [everyone - set(removed[:k]) for k in range(len(removed) + 1)])]
    steps = range(0 if needed is None else len(needed) + 1)
    phases += [(result.needing, [set(needed[:k]) if insertion else kept - set(needed[:k]) for k in steps])]
    for along, coalitions in phases:
        count = len(coalitions)
        np.testing.assert_array_equal(along.target_values[:count], [t(c) for c in coalitions])
        np.testing.assert_array_equal(along.predicted_values[:count], [p(c) for c in coalitions])
        assert along.leads.tolist() == [leads(c) for c in coalitions] + [False] * (n + 1 - count)
        assert np.isnan(along.target_values[count:]).all()
        assert np.isnan(along.predicted_values[count:]).all()
    evaluations = sum(n - k for k in range(len(removed))) + sum(len(kept) - k for k in range(len(needed or [])))
    assert int(result.num_evaluations) == evaluations
    assert int(result.nan_player) == -1
    return needed is not None


@pytest.mark.parametrize("insertion", [False, True])
@pytest.mark.parametrize("num_players", [1, 2, 4, 6])
def test_both_phases_are_those_of_the_formulas(num_players, insertion):
    flipped = []
    for seed in range(6):
        target, predicted, tables = class_games(num_players, seed)
        result = jm.discriminate(target, predicted, num_players, insertion=insertion)
        t, p = (lambda c, k=k, tables=tables: tables[k, index(c)] for k in (0, 1))
        leads = lambda c, tables=tables: int(tables[:, index(c)].argmax()) == 0  # noqa: E731
        flipped.append(check(result, t, p, leads, num_players, insertion))
        share = np.exp(tables[0, -1]) / np.exp(tables[:, -1]).sum()
        np.testing.assert_allclose(result.removing.target_probabilities[0], share, rtol=1e-5)
    assert num_players < 3 or any(flipped)


@pytest.mark.parametrize("insertion", [False, True])
def test_of_plain_functions_the_higher_value_leads(insertion):
    for seed in range(4):
        (one, first), (other, second) = table_game(5, seed), table_game(5, 100 + seed)
        result = jm.discriminate(one, other, 5, insertion=insertion)
        t, p = (lambda c, table=table: table[index(c)] for table in (first, second))
        check(result, t, p, lambda c, t=t, p=p: bool(t(c) > p(c)), 5, insertion)
        assert result.removing.target_probabilities is None
    same = jm.discriminate(lambda masks: lookup(jnp.asarray(first), masks), other, 5, insertion=insertion)
    jax.tree.map(np.testing.assert_array_equal, same, result)


@pytest.mark.parametrize("insertion", [False, True])
def test_eager_jit_and_vmap_agree(insertion):
    def search(tables):
        return jm.discriminate(*(ClassGame(tables, jnp.int32(k)) for k in (0, 1)), 5, insertion=insertion)

    tables = jnp.stack([class_games(5, seed)[2] for seed in range(4)])
    tables = tables.at[1, 0].add(-20.0)  # its target never leads
    expected = [search(t) for t in tables]
    assert len({bool(e.flipped) for e in expected}) == 2  # some never lead, and take part all the same
    jitted, batch = jax.jit(search), jax.jit(jax.vmap(search))(tables)
    for i, one in enumerate(expected):
        for other in (jitted(tables[i]), jax.tree.map(lambda x, i=i: x[i], batch)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), other, one)


def test_a_target_that_leads_already_has_nothing_removed():
    target, predicted, _ = class_games(4, 0)
    result = jm.discriminate(predicted, target, 4)  # the other way round
    assert bool(result.flipped)
    assert int(result.num_removed) == 0
    assert bool(result.kept.all())
    assert int(result.num_needed) >= 1
    assert bool(result.removing.leads[0])


@pytest.mark.parametrize(
    ("stop", "phase_two"),
    [
        (jm.Stop(size=1), None),
        (jm.Stop(probability=0.45), jm.Stop(probability=0.45)),
        (jm.Stop(value=1.0), jm.Stop(value=1.0)),
        (jm.Stop(size=3, flip=True), jm.Stop(flip=True)),
    ],
)
def test_another_level_ends_both_phases(stop, phase_two):
    for seed in range(4):
        target, predicted, tables = class_games(5, seed)
        result = jm.discriminate(target, predicted, 5, stop=stop)
        logits = jnp.asarray(tables)

        def difference(masks, logits=logits):
            return lookup(logits[0], masks) - lookup(logits[1], masks)

        order = jm.greedy_insertion(lambda hidden, v=difference: v(~hidden), 5).order  # phase one, the other way round
        size = int(result.num_removed)
        assert result.removed[:size].tolist() == order[:size].tolist()
        along = result.removing
        told = Readout(along.target_values, along.leads, along.target_probabilities)
        met = np.asarray(stop.met(told, jnp.arange(6), True))[: size + 1]
        assert not met[:-1].any()
        assert met[-1] or size == 5
        goal = phase_two or jm.Stop(flip=True)
        reached = bool(jm.Stop(value=goal.value, flip=goal.flip, probability=goal.probability).met(told, 0, True)[size])
        assert (not np.isnan(result.needing.target_values[0])) == reached
        assert reached or int(result.num_needed) == 0


@pytest.mark.parametrize("insertion", [False, True])
def test_image_games_share_a_forward_pass(insertion):
    model, image = tiny_model()
    for (predicted, num_players), second in zip(image_games((model, image)), (1, 3, 4), strict=True):
        target = dataclasses.replace(predicted, target=jnp.int32(second))
        assert bool(predicted.leads(jnp.ones((1, num_players), bool))[0])
        assert difference_game(target, predicted, num_players).shared
        result = jm.discriminate(target, predicted, num_players, insertion=insertion)
        assert bool(result.flipped)
        assert int(result.num_removed) > 0
        left = jnp.asarray(result.kept)[None]
        assert int(jnp.argmax(target.logits(left)[0])) == second
        needed = np.isin(np.arange(num_players), result.needed)
        assert not (needed & ~np.asarray(result.kept)).any()
        shown = needed if insertion else np.asarray(result.kept) & ~needed
        assert bool(target.leads(jnp.asarray(shown)[None])[0]) == insertion
        if num_players != 4:  # a second program of each takes seconds to compile
            continue
        apart = jm.discriminate(
            jax.tree_util.Partial(_ask, target),
            jax.tree_util.Partial(_ask, predicted),
            num_players,
            insertion=insertion,
        )
        count = min(int(result.num_removed), int(apart.num_removed))  # which follow another rule for who leads
        np.testing.assert_array_equal(result.removed[:count], apart.removed[:count])
        jitted = jax.jit(
            lambda v, other, n=num_players: jm.discriminate(
                v, dataclasses.replace(v, target=other), n, insertion=insertion
            )
        )(target, predicted.target)
        np.testing.assert_array_equal(jitted.removed, result.removed)
        np.testing.assert_array_equal(jitted.needed, result.needed)


def _ask(game, masks):
    return game(masks)


def test_one_forward_pass_a_coalition():
    rows = []

    def logits_fn(images):
        jax.debug.callback(lambda x: rows.append(len(x)), images)
        return jnp.stack([images[:, :4].mean((1, 2, 3)), images[:, 4:].mean((1, 2, 3)), images.min((1, 2, 3))], 1)

    image = jnp.asarray(np.random.default_rng(0).random((8, 8, 3)), jnp.float32).at[4:].add(0.3)
    regions = jm.grid_regions(8, 8, rows=4, cols=2)
    target, predicted = (jm.pixel_value_fn(logits_fn, image, k, regions, fill="mean") for k in (0, None))
    assert int(predicted.target) == 1
    jax.effects_barrier()
    rows.clear()
    result = jm.discriminate(target, predicted, 8, batch_size=1)
    jax.effects_barrier()
    assert bool(result.flipped)
    assert len(rows) == int(result.num_evaluations) + 2  # and the two starts


def test_sized_games_keep_their_promise():
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=40) - shift, jnp.float32) for shift in (0.5, 0.0)]
    for insertion in (False, True):
        one, other = (jm.discriminate(*(SizedGame(w, sized=sized) for w in weights), 40, insertion=insertion)
                      for sized in (True, False))  # fmt: skip
        assert bool(one.flipped)
        np.testing.assert_array_equal(one.removed, other.removed)
        np.testing.assert_array_equal(one.needed, other.needed)
        order = np.argsort(weights[0] - weights[1], stable=True)
        np.testing.assert_array_equal(one.removed[: int(one.num_removed)], order[: int(one.num_removed)])


def test_probabilities_near_one_are_told_apart():
    """Where the predicted class has all but 1e-9, the difference of probabilities is -1 in float32."""
    gain = jnp.asarray([0.01, 0.02, 0.05, 0.03])

    def logits_fn(images):
        lost = (images[:, 0, :, 0] < 0.5) @ gain
        return jnp.stack([-25 + lost, jnp.zeros(len(images)), -25 + 0 * lost], 1)

    image, regions = jnp.ones((1, 4, 3)), jnp.arange(4)[None]
    target, predicted = (jm.pixel_value_fn(logits_fn, image, k, regions, payoff="prob") for k in (0, 1))
    result = jm.discriminate(target, predicted, 4)
    assert result.removed.tolist() == [2, 3, 1, 0]
    assert not bool(result.flipped)


def test_infinite_values_are_no_nan():
    result = jm.discriminate(
        lambda masks: jnp.where(masks[:, 0], -jnp.inf, 1.0), lambda masks: jnp.where(masks[:, 0], -jnp.inf, 0.0), 3
    )
    assert result.removed.tolist() == [0, -1, -1]
    assert bool(result.flipped)


def test_the_callback_counts_on_through_the_second_phase():
    target, predicted, _ = class_games(6, 1)
    seen = []
    result = jm.discriminate(target, predicted, 6, callback=seen.append)
    plain = jm.discriminate(target, predicted, 6)
    jax.tree.map(np.testing.assert_array_equal, result, plain)
    found = [*result.removed[: int(result.num_removed)].tolist(), *result.needed[: int(result.num_needed)].tolist()]
    assert [int(info.player) for info in seen] == found
    assert [int(info.step) for info in seen] == list(range(1, len(found) + 1))


def nan_without(player):
    return lambda masks: jnp.where(masks[:, player], masks @ jnp.arange(4.0), jnp.nan)


def linear(masks):
    return masks @ jnp.asarray([5.0, 5.0, 5.0, 5.0])


def test_a_nan_is_named():
    with pytest.raises(jm.NaNValueError, match="in phase one at step 1, for player 2"):
        jm.discriminate(nan_without(2), linear, 4)
    with pytest.raises(jm.NaNValueError, match="in phase one at step 1, for player 3"):
        jm.discriminate(linear, lambda masks: 9 + nan_without(3)(masks) * 4, 4)
    with pytest.raises(jm.NaNValueError, match="in phase one of its start"):
        jm.discriminate(lambda masks: jnp.full(len(masks), jnp.nan), linear, 4)
    with pytest.raises(jm.NaNValueError, match="in phase two at step 1, for player 1"):
        jm.discriminate(lambda masks: 50 + nan_without(1)(masks), linear, 4)
    traced = jax.jit(lambda: jm.discriminate(nan_without(2), linear, 4))()
    assert int(traced.nan_player) == 2
    assert not bool(traced.flipped)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v, w: jm.discriminate(v, v, 4), "same game twice, of class 0. Give v_target for a class that"),
        (
            lambda v, w: jm.discriminate(v, dataclasses.replace(v, fill=v.fill + 1), 4),
            "expected the games of two classes; got two of class 0",
        ),
        (
            lambda v, w: jm.discriminate(v, dataclasses.replace(w, image=w.image + 1), 4),
            "expected two games of the same image; got different images",
        ),
        (lambda v, w: jm.discriminate(linear, linear, 4), "got the same game twice. Give"),
        (
            lambda v, w: jm.discriminate(v, w.with_payoff("logit"), 4),
            "same payoff, .* 'log_odds' and v_predicted 'logit'",
        ),
        (lambda v, w: jm.discriminate(v, w, 5), "the value function has 4 players"),
        (lambda v, w: jm.discriminate(v, w, 4, batch_size=0), "batch_size must be at least 1"),
        (lambda v, w: jm.discriminate(v, w, 4, stop=jm.Stop(size=0)), "at least 1; got 0"),
        (lambda v, w: jm.discriminate(linear, w, 4, stop=jm.Stop(probability=0.5)), "needs the explained class's prob"),
        (
            lambda v, w: jax.jit(lambda v: jm.discriminate(v, w, 4, callback=print))(v),
            "callback needs a search out",
        ),
    ],
)
def test_wrong_inputs_are_named(make, message):
    image, regions = jnp.ones((2, 2, 3)), jnp.arange(4).reshape(2, 2)
    games = [jm.pixel_value_fn(lambda x: x[:, 0, :, :].sum(1) @ jnp.eye(3), image, k, regions) for k in (0, 1)]
    with pytest.raises(ValueError, match=message):
        make(*games)


def test_there_is_no_gradient():
    _, _, tables = class_games(3, 0)

    def area(tables):
        games = [ClassGame(tables, jnp.int32(k)) for k in (0, 1)]
        return jm.discriminate(*games, 3).removing.target_values[0]

    with pytest.raises(ValueError, match="no gradient"):
        jax.grad(area)(jnp.asarray(tables))
