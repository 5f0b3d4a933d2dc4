"""The contract: what a game may answer, what a plain function becomes, and what a wrapper passes on."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.base import FunctionGame, Game, GameWrapper, as_game
from jaxmoxi.games.robust import RobustValueFn
from jaxmoxi.pytrees import record, static
from jaxmoxi.types import Readout, Stop
from support.games import SizedGame, ThresholdGame, table_game

ANSWERS = {name for name in vars(Game) if not name.startswith("_")} | {"__call__"}


def test_everything_a_game_may_answer_is_documented():
    text = Game.__doc__ + "".join(member.__doc__ or "" for member in vars(Game).values() if inspect.isfunction(member))
    for name in ANSWERS - {"__call__"}:
        member = vars(Game)[name]
        assert (inspect.isfunction(member) and member.__doc__) or f"{name}:" in text, name


def test_a_wrapper_passes_everything_on():
    """A name that `Game` declares and a wrapper does not answer would silently be the default."""
    derived = {"__call__", "leads", "probabilities"}  # from `readout`, which the wrapper passes on
    for wrapper in (GameWrapper, RobustValueFn):
        assert set(vars(wrapper)) >= ANSWERS - derived


@record
class Everything(Game):
    """A game that answers everything, each with something that no default is."""

    weights: jax.Array
    num_players: int = static(default=4)
    sized: bool = static(default=True)
    gated: bool = static(default=True)
    blends: bool = static(default=True)
    payoff: str = static(default="logit")

    @property
    def target(self):
        return jnp.int32(3)

    def readout(self, masks, *, max_visible=None):
        values = masks @ self.weights + (0 if max_visible is None else 100)
        return Readout(values, values > 0, jax.nn.sigmoid(values))

    def logits(self, masks, *, max_visible=None):
        return jnp.stack([masks @ self.weights] * 2, 1)

    def relaxed(self, gates):
        return gates @ self.weights

    def blended(self, shares):
        return Readout(shares.sum((1, 2)))

    def player_borders(self, num_players):
        return jnp.full((num_players, num_players), 7)

    def with_payoff(self, payoff):
        return Everything(self.weights, payoff=payoff)


class Duck:
    """The same answers without the base class; its array is no leaf."""

    def __init__(self):
        self._game = Everything(jnp.arange(4.0))

    def __getattr__(self, name):
        return getattr(self._game, name)

    def __call__(self, masks, *, max_visible=None):
        return self._game(masks, max_visible=max_visible)


@pytest.mark.parametrize(
    "make",
    [
        lambda g: g,
        lambda g: jm.shard_coalitions(g, jax.make_mesh((8,), ("x",))),
        lambda g: Duck(),
        lambda g: jm.robust_value_fn([g]),
    ],
)
def test_wrapped_or_not_the_answers_are_the_same(make):
    plain = Everything(jnp.arange(4.0))
    game = as_game(make(plain))
    masks = jnp.asarray(np.random.default_rng(0).random((5, 4)) < 0.5)
    assert (game.num_players, game.sized, game.gated, game.blends, game.payoff) == (4, True, True, True, "logit")
    assert int(game.target) == 3
    for size in (None, 3):
        for ours, theirs in zip(
            game.readout(masks, max_visible=size), plain.readout(masks, max_visible=size), strict=True
        ):
            np.testing.assert_allclose(ours, theirs)
    np.testing.assert_array_equal(game(masks), plain(masks))
    np.testing.assert_array_equal(game.leads(masks), plain.leads(masks))
    np.testing.assert_allclose(game.probabilities(masks), plain.probabilities(masks))
    np.testing.assert_array_equal(game.logits(masks), plain.logits(masks))
    np.testing.assert_array_equal(game.relaxed(masks * 0.5), plain.relaxed(masks * 0.5))
    np.testing.assert_array_equal(game.blended(jnp.ones((3, 2, 2))).values, [4, 4, 4])
    np.testing.assert_array_equal(game.player_borders(4), np.full((4, 4), 7))
    assert game.with_payoff("prob").payoff == "prob"


def test_a_function_is_wrapped_once():
    v, _ = table_game(3)
    game = as_game(v)
    assert isinstance(game, FunctionGame)
    assert as_game(game) is game
    assert (game.num_players, game.sized, game.gated, game.blends, game.payoff, game.target) == (
        None,
        *[False] * 3,
        None,
        None,
    )
    assert game.with_payoff("prob") is None
    assert game.player_borders(3) is None
    for ask in (game.leads, game.probabilities, game.logits):
        with pytest.raises(jm.InputError, match="this game"):
            ask(jnp.ones((1, 3), bool))
    with pytest.raises(jm.InputError, match="needs a value function with `relaxed"):
        game.relaxed(jnp.ones((1, 3)))
    with pytest.raises(jm.InputError, match="hides no pixels"):
        game.blended(jnp.ones((1, 3, 3)))


@record
class Leads:
    """A game that tells who leads by a method of its own, and no readout."""

    weights: jax.Array
    sized: bool = static(default=True)

    def __call__(self, masks, *, max_visible=None):
        return jnp.tanh(self.kept(masks, max_visible) @ self.weights).sum(1)

    def leads(self, masks, *, max_visible=None):
        return self(masks, max_visible=max_visible) > 0

    def kept(self, masks, max_visible):
        return masks.astype(jnp.float32)[:, : max_visible or masks.shape[1]]


def test_leads_without_a_readout_cost_no_second_forward():
    game = as_game(Leads(jnp.ones((4, 4))))
    text = jax.jit(lambda g, m: g.readout(m, max_visible=4)).lower(game, jnp.ones((2, 9), bool)).compile().as_text()
    assert text.count(" dot(") + text.count("custom-call") == 1
    assert game.sized_leads
    assert not as_game(SizedGame(jnp.ones(3))).sized_leads


def test_a_step_on_its_own_traces_the_model_once():
    traces = []

    def v(masks):
        traces.append(masks.shape)
        return masks.sum(1) * 1.0

    state = jm.greedy_init(v, 6)
    state, _ = jm.greedy_step(v, state)
    seen = len(traces)
    for _ in range(4):
        state, info = jm.greedy_step(v, state)
    assert len(traces) == seen
    assert int(info.step) == 4


@pytest.mark.parametrize("insertion", [True, False])
def test_a_stop_is_one_rule_for_arrays_numbers_and_compiled_code(insertion):
    rng = np.random.default_rng(0)
    out = Readout(rng.normal(size=50).astype(np.float32), rng.random(50) < 0.5, rng.random(50).astype(np.float32))
    size = np.arange(50)
    for stop in (
        Stop(),
        Stop(size=20),
        Stop(value=0.3),
        Stop(flip=True),
        Stop(probability=0.6),
        Stop(value=0.1, size=9),
    ):
        want = np.zeros(50, bool)
        if stop.size is not None:
            want |= size >= stop.size
        for level, now in ((stop.value, out.values), (stop.probability, out.probabilities)):
            if level is not None:
                want |= now >= np.float32(level) if insertion else now <= np.float32(level)
        if stop.flip:
            want |= out.leads == insertion
        np.testing.assert_array_equal(stop.met(out, size, insertion), want)
        compiled = jax.jit(lambda stop, out: stop.met(out, jnp.arange(50), insertion))
        np.testing.assert_array_equal(compiled(stop.as_arrays(), out), want)
    assert not Stop(value=0.0, probability=0.5).met(Readout(np.float32(np.nan), None, None), 3, insertion)


def test_a_goal_is_a_stop_or_its_short_form():
    v = ThresholdGame(jnp.array([3.0, 2.0, 1.0]), jnp.float32(-2.5))
    for short, stop in (
        ({"probability": 0.6}, Stop(probability=0.6)),
        ({"value": 1.0}, Stop(value=1.0)),
        ({}, Stop(flip=True)),
    ):
        for search in (jm.search.minimal_group, jm.search.backward_elimination, jm.search.beam_search):
            a, b = search(v, 3, **short), search(v, 3, stop=stop)
            jax.tree.map(np.testing.assert_array_equal, a, b)
    for wrong, message in (
        ({"stop": Stop(size=2)}, "the search looks for the size"),
        ({"stop": Stop()}, "expected a goal of one condition"),
        ({"stop": Stop(flip=True, value=1.0)}, "expected a goal of one condition"),
        ({"stop": Stop(flip=True), "value": 1.0}, "expected the goal once"),
    ):
        with pytest.raises(jm.InputError, match=message):
            jm.search.minimal_group(v, 3, **wrong)


@pytest.mark.parametrize("curve", [jm.insertion_curve, jm.deletion_curve])
def test_curves_promise_how_few_players_are_visible(curve):
    weights = jnp.arange(40.0)
    sizes = []

    class Noting(Game):
        sized = True

        def readout(self, masks, *, max_visible=None):
            sizes.append(max_visible)
            return Readout(jnp.where(masks.sum(1) <= max_visible, masks @ weights, jnp.nan))

    out = curve(Noting(), jnp.arange(40)[::-1])
    np.testing.assert_allclose(
        np.asarray(out.values)[[0, -1]], [0, weights.sum()] if curve is jm.insertion_curve else [weights.sum(), 0]
    )
    assert not np.isnan(out.values).any()
    assert set(sizes) == {10, 20, 30, 40}
