import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.moxi.stages import plan_stages
from jaxmoxi.pytrees import pack
from support.games import Notes, SizedGame, ThresholdGame, TracedGame, brute_greedy, lookup, table_game

SEARCHES = {True: jm.greedy_insertion, False: jm.greedy_deletion}


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("num_players", [1, 2, 5, 8])
def test_is_the_papers_greedy(num_players, insertion):
    for seed in range(4):
        v, table = table_game(num_players, seed)
        result = SEARCHES[insertion](v, num_players)
        order, values = brute_greedy(table, num_players, insertion)
        np.testing.assert_array_equal(result.order, order)
        np.testing.assert_allclose(result.values, values, rtol=1e-6)
        assert result.start_value == table[0 if insertion else -1]
        assert result.num_steps == num_players
        assert result.num_evaluations == num_players * (num_players + 1) // 2
        assert result.nan_player == -1


@pytest.mark.parametrize("insertion", [True, False])
def test_ties_go_to_the_lowest_index(insertion):
    result = SEARCHES[insertion](lambda masks: masks[:, 3].astype(jnp.float32), 7)
    assert result.order.tolist() == [3, 0, 1, 2, 4, 5, 6]
    everywhere = SEARCHES[insertion](lambda masks: jnp.full(len(masks), -jnp.inf), 5)
    assert everywhere.order.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
@pytest.mark.parametrize("insertion", [True, False])
def test_batch_size_changes_nothing(batch_size, insertion):
    v, _ = table_game(8, 1)
    expected = SEARCHES[insertion](v, 8)
    result = SEARCHES[insertion](v, 8, batch_size=batch_size)
    np.testing.assert_array_equal(result.order, expected.order)
    np.testing.assert_array_equal(result.values, expected.values)
    assert result.num_evaluations == 36


@pytest.mark.parametrize("insertion", [True, False])
def test_eager_jit_and_vmap_agree(insertion):
    search = SEARCHES[insertion]
    games = [table_game(6, seed)[0] for seed in range(3)]
    expected = [search(v, 6) for v in games]
    jitted = jax.jit(lambda v: search(v, 6))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *games)
    batch = jax.vmap(lambda v: search(v, 6))(stacked)
    for i, (v, result) in enumerate(zip(games, expected, strict=True)):
        for other in (jitted(v), jax.tree.map(lambda x, i=i: x[i], batch)):
            jax.tree.map(np.testing.assert_array_equal, other, result)


def test_jit_through_a_closure():
    v, table = table_game(5, 3)
    result = jax.jit(lambda t: jm.greedy_insertion(lambda masks: lookup(t, masks), 5))(jnp.asarray(table))
    np.testing.assert_array_equal(result.order, jm.greedy_insertion(v, 5).order)


@pytest.mark.parametrize("insertion", [True, False])
def test_init_and_step_are_the_search(insertion):
    v, _ = table_game(6, 5)
    state = jm.greedy_init(v, 6, insertion=insertion)
    state, info = jm.greedy_step(v, state)
    assert (info.step, info.player) == (0, -1)
    players = []
    for k in range(6):
        state, info = jm.greedy_step(v, state)
        assert info.step == k + 1
        players.append(int(info.player))
    expected = SEARCHES[insertion](v, 6)
    assert players == expected.order.tolist()
    np.testing.assert_array_equal(state.readouts.values, expected.values)
    assert bool(jnp.all(state.coalition == insertion))


# Stopping


def threshold_game(weights, bias):
    return ThresholdGame(jnp.asarray(weights, jnp.float32), jnp.float32(bias))


STOPS = [
    (jm.Stop(size=2), 2),
    (jm.Stop(size=99), 5),
    (jm.Stop(value=1.5), 2),
    (jm.Stop(flip=True), 1),
    (jm.Stop(probability=0.9), 3),
    (jm.Stop(size=4, flip=True), 1),
    (jm.Stop(value=100.0), 5),
]


@pytest.mark.parametrize(("stop", "steps"), STOPS)
def test_stop_insertion(stop, steps):
    # After k players the value is -2 + 3, + 1 (2.0), + 0.7 (2.7), + 0.1, + 0
    v = threshold_game([0.1, 1.0, 3.0, 0.7, 0.0], -2.0)
    full = jm.greedy_insertion(v, 5)
    result = jm.greedy_insertion(v, 5, stop=stop)
    assert result.num_steps == steps
    np.testing.assert_array_equal(result.order, [*full.order[:steps], *[-1] * (5 - steps)])
    np.testing.assert_array_equal(result.values[:steps], full.values[:steps])
    assert np.isnan(result.values[steps:]).all()
    assert not np.any(result.leads[steps:])
    assert result.num_evaluations == sum(5 - k for k in range(steps))


def test_stop_deletion():
    v = threshold_game([0.1, 1.0, 3.0, 0.7, 0.0], -2.0)  # full: 2.8; without player 2: -0.2; then -1.2, -1.9, -2
    full = jm.greedy_deletion(v, 5)
    assert full.order.tolist()[:3] == [2, 1, 3]
    assert full.leads.tolist() == [False] * 5
    assert bool(full.start_leads)
    for stop, steps in [
        (jm.Stop(flip=True), 1),
        (jm.Stop(value=-1.0), 2),
        (jm.Stop(probability=0.14), 3),
        (jm.Stop(size=4), 4),
    ]:
        assert jm.greedy_deletion(v, 5, stop=stop).num_steps == steps, stop


@pytest.mark.parametrize(("bias", "search"), [(1.0, jm.greedy_insertion), (-9.0, jm.greedy_deletion)])
def test_a_stop_met_by_the_start_chooses_nobody(bias, search):
    result = search(threshold_game([1.0, 2.0], bias), 2, stop=jm.Stop(flip=True))
    assert result.num_steps == 0
    assert result.num_evaluations == 0
    assert result.order.tolist() == [-1, -1]


def test_stop_inside_jit_and_vmap():
    weights = jnp.asarray([[1.0, 1, 1, 1], [5, 1, 1, 1], [0.1, 0.1, 0.1, 0.1]])
    search = jax.vmap(lambda w: jm.greedy_insertion(ThresholdGame(w, jnp.float32(-2.5)), 4, stop=jm.Stop(flip=True)))
    assert jax.jit(search)(weights).num_steps.tolist() == [3, 1, 4]


def test_stops_computing():
    rows = []

    def v(masks):
        jax.debug.callback(lambda m: rows.append(m), masks)
        return masks.sum(1).astype(jnp.float32)

    jm.greedy_insertion(v, 40, batch_size=4, stop=jm.Stop(size=2))
    jax.effects_barrier()
    assert len(rows) == 3 + 1 + 10 + 10  # v is tried, the start, then ceil(40 / 4) and ceil(39 / 4) chunks


# Stages


@pytest.mark.parametrize("num_players", [1, 5, 16, 17, 49, 196])
@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("coarse", [True, False])
def test_stages_hold_every_step(num_players, insertion, coarse):
    stages = plan_stages(num_players, insertion=insertion, coarse=coarse)
    assert stages[-1][0] == num_players
    step = 0
    for last, size, candidates in stages:
        assert candidates >= num_players - step
        for k in range(step, last):
            assert (k + 1 if insertion else num_players - k - 1) <= size
        assert size <= num_players
        step = max(step, last)


@pytest.mark.parametrize("insertion", [True, False])
def test_sized_games_keep_their_promise(insertion):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=60), jnp.float32)
    result = SEARCHES[insertion](SizedGame(weights), 60)  # NaN, and so an error, where the promise is broken
    np.testing.assert_array_equal(result.order, np.argsort(-weights, stable=True))
    plain = SEARCHES[insertion](SizedGame(weights, sized=False), 60)
    np.testing.assert_array_equal(result.order, plain.order)


# Compilation


def test_other_numbers_compile_nothing():
    traces = []

    def logits_fn(params, images):
        traces.append(images.shape)
        return images.mean((1, 2)) @ params

    def explain(seed, target, fill, stop):
        rng = np.random.default_rng(seed)
        params, image = rng.normal(size=(3, 4)), rng.normal(size=(8, 8, 3))
        v = jm.pixel_value_fn(
            jax.tree_util.Partial(logits_fn, jnp.asarray(params, jnp.float32)),
            jnp.asarray(image, jnp.float32),
            target,
            jm.grid_regions(8, 8, rows=2, cols=4),
            fill=fill,
        )
        return jm.greedy_insertion(v, 8, stop=stop)

    first = explain(0, 1, 0.0, jm.Stop(flip=True))
    count = len(traces)
    assert count > 0
    second = explain(1, 2, "blur", jm.Stop(value=0.5))
    explain(2, 3, [0.1, 0.2, 0.3], jm.Stop(flip=True, size=3))
    assert len(traces) == count
    assert first.order.tolist() != second.order.tolist()


@pytest.mark.parametrize("insertion", [True, False])
def test_one_compilation_a_stage_and_none_that_is_not_reached(insertion):
    stages = plan_stages(196, insertion=insertion)
    assert 5 <= len(stages) <= 16
    notes = Notes()
    weights = jnp.asarray(np.random.default_rng(0).permutation(196), jnp.float32)
    run = SEARCHES[insertion]
    run(TracedGame(weights, notes), 196, stop=jm.Stop(size=stages[0].steps), batch_size=16)
    assert [m for m in notes if m is not None] == [196, 196, stages[0].max_visible]  # at first the function is tried
    run(TracedGame(weights, notes), 196, batch_size=16)
    assert [m for m in notes if m is not None] == [196, 196, *(s.max_visible for s in stages)]
    count = len(notes)
    result = run(TracedGame(-weights, notes), 196, batch_size=16)
    run(TracedGame(weights, notes), 196, batch_size=16, stop=jm.Stop(value=17.0 * (1 if insertion else -1)))
    assert len(notes) == count
    np.testing.assert_array_equal(result.order, np.argsort(weights))


@pytest.mark.parametrize(("insertion", "most"), [(True, 0.38), (False, 0.72)])
def test_stages_save_work(insertion, most):
    """Token evaluations against those at full length, of which there is one for each candidate."""
    step, work = 0, 0
    for last, size, _ in plan_stages(196, insertion=insertion):
        work += sum(196 - k for k in range(step, last)) * (size + 1)
        step = max(step, last)
    assert work / (197 * 196 * 197 / 2) < most


# Errors


@pytest.mark.parametrize("insertion", [True, False])
def test_nan_names_step_and_player(insertion):
    def v(masks):
        marked = masks if insertion else ~masks
        return jnp.where(marked[:, 1] & marked[:, 2], jnp.nan, marked @ jnp.arange(4.0) * (1 if insertion else -1))

    with pytest.raises(
        jm.NaNValueError, match=r"NaN at step 3, for player 1 \(already (inserted|deleted): \[3, 2\]\)"
    ) as e:
        SEARCHES[insertion](v, 4)
    assert e.value.result.order.tolist() == [3, 2, -1, -1]
    assert e.value.result.num_steps == 2
    result = jax.jit(lambda: SEARCHES[insertion](v, 4))()
    assert (result.num_steps, result.nan_player) == (2, 1)
    assert np.isnan(result.values[2:]).all()


def test_nan_of_the_start():
    with pytest.raises(jm.NaNValueError, match="NaN of the start, with no player visible"):
        jm.greedy_insertion(lambda m: jnp.where(m.any(1), 1.0, jnp.nan), 3)
    with pytest.raises(jm.NaNValueError, match="NaN of the start, with every player visible"):
        jm.greedy_deletion(lambda m: jnp.where(m.all(1), jnp.nan, 1.0), 3)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (jm.Stop(size=0), "at least 1; got 0"),
        (jm.Stop(probability=1.5), "between 0 and 1; got 1.5"),
        (jm.Stop(value=float("nan")), "is NaN; give the payoff"),
        (jm.Stop(flip=True), "give it a method `leads"),
        (jm.Stop(probability=0.5), "needs the explained class's probability"),
    ],
)
def test_stops_that_cannot_be(stop, message):
    v, _ = table_game(3)
    with pytest.raises(ValueError, match=message):
        jm.greedy_insertion(v, 3, stop=stop)


def test_bad_arguments():
    v, _ = table_game(3)
    with pytest.raises(ValueError, match="num_players must be an integer of at least 1; got 0"):
        jm.greedy_insertion(v, 0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        jm.greedy_insertion(v, 3, batch_size=0)
    with pytest.raises(ValueError, match=r"returns float32\[C\]; for \[\d+, 3\] it returned shape \[\d+, 3\]"):
        jm.greedy_insertion(lambda masks: masks * 1.0, 3)
    with pytest.raises(ValueError, match="callback needs a search outside jit"):
        jax.jit(lambda v: jm.greedy_insertion(v, 3, callback=print))(v)
    with pytest.raises(TypeError, match="expected a function, got int"):
        pack(3)


def test_leads_alone_are_enough_to_flip():
    class Game:
        def __call__(self, masks):
            return masks.sum(1).astype(jnp.float32)

        def leads(self, masks):
            return masks.sum(1) >= 3

    result = jm.greedy_insertion(Game(), 5, stop=jm.Stop(flip=True))
    assert result.num_steps == 3
    assert result.leads.tolist() == [False, False, True, False, False]
    assert result.probabilities is None


def test_callback_sees_every_step():
    v = threshold_game([0.1, 1.0, 3.0, 0.7, 0.0], -2.0)
    seen = []
    result = jm.greedy_insertion(v, 5, callback=seen.append, stop=jm.Stop(size=4))
    assert [int(i.player) for i in seen] == result.order[:4].tolist()
    assert [int(i.step) for i in seen] == [1, 2, 3, 4]
    np.testing.assert_array_equal([i.probability for i in seen], result.probabilities[:4])


def test_single_player_order():
    v, table = table_game(6, 2)
    alone = [table[2**i] for i in range(6)]
    without = [table[63 - 2**i] for i in range(6)]
    np.testing.assert_array_equal(jm.single_player_order(v, 6), np.argsort(-np.array(alone), kind="stable"))
    np.testing.assert_array_equal(
        jm.single_player_order(v, 6, insertion=False), np.argsort(np.array(without), kind="stable")
    )
