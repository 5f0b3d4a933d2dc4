"""Several games as one: what it answers against the games asked one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.games.base import Game, as_game
from jaxmoxi.games.payoff import split_remainders
from jaxmoxi.games.robust import RobustValueFn
from jaxmoxi.pytrees import record, static
from jaxmoxi.search.asking import Reader
from jaxmoxi.types import Readout
from support.games import SizedGame, ThresholdGame, every_coalition, table_game
from support.search import small_model

REDUCES = {"min": np.min, "mean": np.mean, "max": np.max}
REGIONS = jm.grid_regions(8, 8, rows=2, cols=2)


@pytest.fixture(scope="module")
def tiny():
    return small_model()


@pytest.fixture(scope="module")
def removals(tiny):
    """Three games of pixels, which are one stack, and one of tokens between them."""
    model, image = tiny
    games = [jm.pixel_value_fn(model.logits, image, 2, REGIONS, fill=fill) for fill in ("mean", "blur", 0.5)]
    games.insert(1, jm.token_value_fn(model, image, 2, REGIONS))
    return games


@pytest.fixture(scope="module")
def masks():
    return jnp.asarray(every_coalition(4))


@jax.jit
def everything(v, masks):
    """All that a game says."""
    gates = masks * 0.5 + 0.1
    slope = jax.grad(lambda g: v.relaxed(g).sum())(gates)
    margin = v.with_payoff("margin")(masks)
    return v.readout(masks), margin, v.relaxed(gates), slope


def test_it_answers_what_its_games_answer(removals, masks):
    outs, *others, _ = zip(*(jax.device_get(everything(v, masks)) for v in removals), strict=True)
    shares = np.mean([o.leads for o in outs], axis=0)
    assert len(set(shares)) > 2  # where all, some, and fewer lead
    leads = {"min": shares == 1, "mean": shares > 0.5, "max": shares > 0}
    for reduce, by in REDUCES.items():
        robust = jm.robust_value_fn(removals, reduce=reduce)
        told, *rest, slope = everything(robust, masks)
        for name in ("values", "probabilities"):
            want = by([getattr(o, name) for o in outs], axis=0)
            np.testing.assert_allclose(getattr(told, name), want, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(told.leads, leads[reduce])
        for mine, theirs in zip(rest, others, strict=True):
            np.testing.assert_allclose(mine, by(theirs, axis=0), rtol=1e-4, atol=1e-5)
        assert np.isfinite(slope).all()
        assert np.abs(slope).max() > 0
    each = jax.jit(lambda v: v.each(masks))(robust)
    np.testing.assert_allclose(each.values, [o.values for o in outs], rtol=1e-4, atol=1e-5)
    assert [type(g) for g in robust.games] == [type(v) for v in removals]


def test_it_says_about_itself_what_all_its_games_are(removals):
    robust = jm.robust_value_fn(removals)
    assert (robust.num_players, robust.payoff, int(robust.target)) == (4, "log_odds", 2)
    assert (robust.sized, robust.gated, robust.blends, robust.num_shards, robust.link) == (False, True, False, 1, None)
    np.testing.assert_array_equal(robust.player_sizes(4), [16] * 4)  # pixels, where a game counts them
    pixels = jm.robust_value_fn([removals[0], *removals[2:]])
    assert pixels.blends
    assert len(pixels.stacks) == 1
    half = jax.jit(lambda v: v.blended(jnp.full((1, 8, 8), 0.5)).values)
    np.testing.assert_allclose(half(pixels), min(half(v) for v in removals if v.blends), rtol=1e-5)
    tokens = jm.robust_value_fn(removals[1:2] * 2)
    assert tokens.sized
    assert not tokens.blends
    with pytest.raises(jm.InputError, match="no logits in common"):
        robust.logits(jnp.ones((1, 4), bool))


def test_weights_that_are_shared_are_held_once(removals):
    robust = jm.robust_value_fn([removals[0], *removals[2:]])
    weights = {id(x): x for x in jax.tree.leaves(removals[0].logits_fn)}
    assert {id(x) for x in robust.stacks[0].shared} >= set(weights)
    held = sum(x.nbytes for x in jax.tree.leaves(robust))
    own = sum(v.image.nbytes + v.fill.nbytes + v.regions.nbytes + v.target.nbytes for v in robust.games)
    assert held <= sum(x.nbytes for x in weights.values()) + own
    other = robust.with_payoff("prob")
    assert {id(x) for x in other.stacks[0].shared} == {id(x) for x in robust.stacks[0].shared}


def test_of_one_game_it_is_that_game(removals, masks):
    for reduce, v in (("min", removals[0]), ("min", removals[1]), ("mean", removals[1]), ("max", removals[1])):
        robust = jm.robust_value_fn([v], reduce=reduce)
        for size in (None, 4):
            mine, own = jm.readouts(robust, masks, max_visible=size), jm.readouts(v, masks, max_visible=size)
            jax.tree.map(np.testing.assert_array_equal, mine, own)
        assert (robust.link, robust.sized) == (v.link, v.sized)
        logits = jax.jit(lambda v: v.logits(masks))
        np.testing.assert_array_equal(logits(robust), logits(v))
        jax.tree.map(np.testing.assert_array_equal, robust.read(logits(v)), v.read(logits(v)))


def test_under_jit_and_vmap(tiny, masks):
    model, image = tiny

    @jax.jit
    def values(image, target):
        fills = (0.0, "mean")
        vs = [jm.pixel_value_fn(model.logits, image, target, REGIONS, fill=f, payoff="logit") for f in fills]
        return jm.robust_value_fn(vs)(masks)

    images = jnp.stack([image, image[::-1]])
    together = jax.jit(jax.vmap(values, in_axes=(0, None)))(images, 1)
    np.testing.assert_allclose(together, [values(i, 1) for i in images], rtol=1e-4, atol=1e-5)
    fixed = jm.pixel_value_fn(model.logits, image, 1, REGIONS, payoff="logit")(masks)
    blank = jm.pixel_value_fn(model.logits, image, 1, REGIONS, fill="mean", payoff="logit")(masks)
    np.testing.assert_allclose(together[0], np.minimum(fixed, blank), rtol=1e-4, atol=1e-5)

    @jax.jit
    def two_classes(targets):
        return jm.robust_value_fn([jm.pixel_value_fn(model.logits, image, t, REGIONS) for t in targets])(masks)

    assert np.isnan(two_classes(jnp.array([1, 2]))).all()  # nobody could look at the classes
    assert np.isfinite(two_classes(jnp.array([2, 2]))).all()


def test_a_nan_in_one_part_is_a_nan_in_the_whole():
    games = [ThresholdGame(jnp.ones(3), jnp.float32(b)) for b in (-1.5, np.nan, 0.5)]
    for reduce in REDUCES:
        robust = jm.robust_value_fn(games, reduce=reduce)
        out = jm.readouts(robust, np.ones((2, 3), bool))
        assert np.isnan(out.values).all()
        assert np.isnan(out.probabilities).all()
        with pytest.raises(jm.NaNValueError):
            jm.greedy_insertion(robust, 3)


def test_games_of_all_kinds_meet():
    """A plain function, a record, a game that promises sizes: none of them has the structure of another."""
    v, table = table_game(3)
    weights = jnp.array([0.5, -1.0, 2.0])
    robust = jm.robust_value_fn([SizedGame(weights), v, lambda masks: masks.sum(1) * 1.0, SizedGame(-weights)])
    masks = every_coalition(3)
    linear = masks @ np.asarray(weights)
    want = [linear, table[masks @ [1, 2, 4]], masks.sum(1), -linear]
    np.testing.assert_allclose(jm.evaluate(robust, masks), np.min(want, axis=0), rtol=1e-6)
    np.testing.assert_allclose(robust.each(jnp.asarray(masks)).values, want, rtol=1e-6)
    assert len(robust.stacks) == 3
    assert jm.readouts(robust, masks).leads is None
    assert not robust.sized
    # Those that are sized are given the promise, which a full row breaks; the others are not.
    broken = robust.each(jnp.ones((1, 3), bool), max_visible=2).values[:, 0]
    assert np.isnan(broken).tolist() == [True, False, False, True]


@record
class Probability(Game):
    """Probabilities that are known with their remainders."""

    logit: jax.Array
    num_players: int = static(default=1)
    remainder: bool = static(default=False)
    payoff: str = static(default="prob")

    def readout(self, masks, *, max_visible=None):
        p = jax.nn.sigmoid(self.logit)
        rest = jnp.where(self.logit > 0, -jax.nn.sigmoid(-self.logit), p)
        return Readout(jnp.broadcast_to(rest if self.remainder else p, len(masks)))

    def remainders(self):
        return dataclasses.replace(self, remainder=True)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(
    "logits", [(40, 39, 60), (-50, -45, -60), (-2, 1, 30), (0.3, 0.2, -0.9), (2, -1, -2), (9, -1, -0.1)]
)
def test_remainders_are_of_the_reduced_probability(reduce, logits):
    robust = jm.robust_value_fn([Probability(jnp.float32(x)) for x in logits], reduce=reduce)
    ends, rest = split_remainders(robust.remainders()(jnp.ones((1, 1), bool)))
    exact = np.array(logits, np.float64)
    p, against = 1 / (1 + np.exp(-exact)), 1 / (1 + np.exp(exact))
    want = REDUCES[reduce](p)
    other = {"min": np.max, "mean": np.mean, "max": np.min}[reduce](against)
    assert float(ends[0]) == (want > 0.5)
    np.testing.assert_allclose(float(rest[0]), -other if want > 0.5 else want, rtol=1e-5)
    assert robust.remainders().with_payoff("prob") is None


def test_searches_and_meshes_take_it(removals, masks):
    robust = jm.robust_value_fn(removals[:2])
    sharded = jm.shard_coalitions(robust, jax.make_mesh((8,), ("x",)))
    np.testing.assert_allclose(jm.evaluate(sharded, masks), jm.evaluate(robust, masks), rtol=1e-4, atol=1e-5)
    assert sharded.num_shards == 8
    games = [ThresholdGame(jnp.asarray(w), jnp.float32(-1.5)) for w in ([2.0, 1, 0, 0], [0.0, 1, 2, 0])]
    both = jm.robust_value_fn(games)
    assert np.flatnonzero(search.minimal_group(both, 4).group).tolist() == [0, 2]
    orders = jax.jit(lambda v: jm.greedy_insertion(v, 4).order)(both)
    np.testing.assert_array_equal(orders, jm.greedy_insertion(both, 4).order)
    together = search.minimal_groups([both, jm.robust_value_fn(games[::-1])], 4)
    assert together.size.tolist() == [2, 2]


def test_ranking_by_the_margin_costs_no_second_forward(removals):
    def products(reader, v):
        text = jax.jit(lambda v, m: reader(v, m, None)).lower(v, jnp.ones((4, 4), bool)).compile().as_text()
        return text.count(" dot(") + text.count("custom-call(")

    for v in (as_game(removals[0]), jm.robust_value_fn([removals[0], removals[2]])):
        assert 0 < products(Reader(margin=True), v) == products(Reader(), v)


@pytest.mark.usefixtures("unchecked")
def test_errors(removals, tiny):
    model, image = tiny
    regions = jm.grid_regions(8, 8, rows=2, cols=1)
    with pytest.raises(jm.InputError, match="at least one value function; got none"):
        jm.robust_value_fn([])
    with pytest.raises(
        jm.InputError, match=r"a list of value functions; got PixelValueFn. Of a single one it is \[v\]"
    ):
        jm.robust_value_fn(removals[0])
    with pytest.raises(jm.InputError, match="reduce of min, mean, max; got 'median'"):
        jm.robust_value_fn(removals, reduce="median")
    with pytest.raises(jm.InputError, match=r"the same players; their numbers of players are \[4, 2\]"):
        jm.robust_value_fn([removals[0], jm.pixel_value_fn(model.logits, image, 2, regions)])
    with pytest.raises(jm.InputError, match="one payoff.*number 0 has 'log_odds' and number 1 has 'prob'"):
        jm.robust_value_fn([removals[0], removals[2].with_payoff("prob")])
    with pytest.raises(jm.InputError, match=r"one class; they explain the classes \[2, 3\]"):
        jm.robust_value_fn([removals[0], dataclasses.replace(removals[0], target=jnp.int32(3))])
    with pytest.raises(jm.InputError, match="one link, .*; got sigmoid, softmax"):
        jm.robust_value_fn([removals[0], dataclasses.replace(removals[0], link="sigmoid")])
    assert isinstance(jm.robust_value_fn(tuple(removals)), RobustValueFn)
