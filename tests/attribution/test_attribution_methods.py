"""What all methods keep to."""

import dataclasses
import inspect
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.attribution import METHODS
from support.attribution import (
    BLOBS,
    GRID,
    IMAGE,
    LINEAR,
    SHALLOW,
    linear_logits,
    make,
    tiny_net,
    token_problem,
    vit_model,
)

KEY = jax.random.key(7)
OPTIONS = {
    "integrated-gradients": dict(num_steps=3),
    "rise": dict(num_samples=24, cells=3),
    "hsic": dict(num_samples=24),
    "shapley": dict(num_samples=3),
    "robust": dict(num_removals=1, budget=40),  # of tokens
}
CHOICES = [(name, way) for name, m in METHODS.items() for way in ((True, False) if m.directed else (None,))]


def explain_with(name, way=None):
    options = OPTIONS.get(name, {}) | ({} if way is None else dict(insertion=way))
    return partial(METHODS[name].explain, **options)


def test_the_names():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.source
        parameters = list(inspect.signature(method.explain).parameters)
        assert parameters[:2] == ["key", "problem"]
        assert method.directed == ("insertion" in parameters)


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, way in CHOICES if METHODS[name].traceable])
def test_jit_is_eager_and_one_program_serves_every_image_and_all_weights(name, way):
    explain = explain_with(name, way)
    key = KEY if METHODS[name].draws else None
    compiled = jax.jit(explain)
    problems = [
        make(vit_model(SHALLOW), payoff="log_odds"),
        make(vit_model(SHALLOW, tag="b"), payoff="log_odds", image=2 * IMAGE[::-1]),
    ]
    found = []
    for problem in problems:
        eager = explain(key, problem)
        assert eager.shape == (9,)
        assert eager.dtype == jnp.float32
        np.testing.assert_allclose(compiled(key, problem), eager, rtol=2e-3, atol=2e-3 * np.abs(eager).max())
        np.testing.assert_array_equal(explain(key, problem), eager)
        found.append(np.asarray(eager))
    assert compiled._cache_size() == 1
    assert name == "random" or np.abs(found[0] - found[1]).max() > 0


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.draws])
def test_another_key_draws_other_scores(name):
    problem = make(vit_model(SHALLOW))
    explain = explain_with(name)
    assert np.abs(explain(KEY, problem) - explain(jax.random.key(8), problem)).max() > 0
    raw = jax.random.key_data(KEY)
    np.testing.assert_array_equal(explain(raw, problem), explain(KEY, problem))


@pytest.mark.parametrize(("name", "way"), CHOICES)
@pytest.mark.parametrize("tokens", [False, True])
def test_a_game_spread_over_devices(name, way, tokens):
    mesh = jax.make_mesh((2,), ("coalitions",), devices=jax.devices()[:2])
    plain = token_problem(vit_model(SHALLOW)) if tokens else make(vit_model(SHALLOW))
    spread = attribution.problem(plain.model, IMAGE, 2, GRID, v=jm.shard_coalitions(plain.v, mesh))
    assert spread.payoff() == plain.payoff()
    explain = explain_with(name, way)
    key = KEY if METHODS[name].draws else None
    expected = explain(key, plain)
    np.testing.assert_allclose(explain(key, spread), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_vmap_over_problems():
    problems = [make(vit_model(SHALLOW), image=image, regions=BLOBS) for image in (IMAGE, -IMAGE)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    for name in ("gradient", "grad-cam", "attention-rollout", "occlusion"):
        explain = partial(METHODS[name].explain, None)
        for row, problem in zip(jax.vmap(explain)(stacked), problems, strict=True):
            expected = explain(problem)
            np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_where_a_method_applies():
    problems = {"vit": make(vit_model(SHALLOW)), "own maps": make(tiny_net()), "function": make(LINEAR)}
    lacking = {"vit": set(), "own maps": {"attention-rollout"}}
    lacking["function"] = {"attention-rollout", "grad-cam", "grad-cam++"}
    for kind, problem in problems.items():
        for name, method in METHODS.items():
            if name in lacking[kind]:
                with pytest.raises(ValueError, match=f"{name.replace('+', '[+]')} needs a"):
                    method.applies(problem)
            else:
                method.applies(problem)


def test_a_problem_by_default_hides_pixels():
    model = vit_model(SHALLOW)
    problem = attribution.problem(model, IMAGE, 2, BLOBS)
    masks = np.random.default_rng(0).random((6, 5)) < 0.5
    np.testing.assert_array_equal(
        jm.evaluate(problem.v, masks), jm.evaluate(jm.pixel_value_fn(model.logits, IMAGE, 2, BLOBS), masks)
    )
    assert problem.payoff() == "log_odds"
    assert problem.num_players == 5
    np.testing.assert_allclose(attribution.problem(LINEAR, IMAGE, 2, GRID).logits(IMAGE[None]), LINEAR(IMAGE[None]))


def test_problems_that_cannot_be(unchecked):
    model = vit_model(SHALLOW)
    v = jm.token_value_fn(model, IMAGE, 2)
    with pytest.raises(ValueError, match="the game has 9 players, the regions 5"):
        attribution.problem(model, IMAGE, 2, BLOBS, v=v)
    with pytest.raises(ValueError, match="the game explains class 2, the problem class 1"):
        attribution.problem(model, IMAGE, 1, GRID, v=v)
    with pytest.raises(ValueError, match="expected a Classifier or a function images .* got str"):
        attribution.problem("vit", IMAGE, 1, GRID)
    with pytest.raises(ValueError, match=r"expected a float image as the classifier wants it, got int32"):
        attribution.problem(model, IMAGE.astype(int), 2, GRID, v=v)
    with pytest.raises(ValueError, match=r"expected the target as one class index.*of shape \(1,\)"):
        attribution.problem(model, IMAGE, [2], GRID, v=v)
    with pytest.raises(ValueError, match=r"expected regions of integers \[12, 12\]"):
        attribution.problem(model, IMAGE, 2, GRID[:6], v=v)
    with pytest.raises(ValueError, match="traced regions is not known; make the problem outside jit"):
        jax.jit(lambda r: attribution.problem(LINEAR, IMAGE, 2, r, v=lambda m: m.sum(1)).num_players)(GRID)


def test_order_of():
    with pytest.warns(UserWarning, match="4 of 5 players have the score of another, and stand in the order of their"):
        order = attribution.order_of(jnp.array([0.5, 2.0, 0.5, -1.0, 2.0]))
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(order, [1, 4, 0, 2, 3])
    np.testing.assert_array_equal(jax.jit(attribution.order_of)(np.array([1.0, np.nan, 3.0], np.float32)), [2, 0, 1])
    with pytest.raises(ValueError, match="the score of player 1 is NaN"):
        attribution.order_of(np.array([1.0, np.nan, 3.0], np.float32))


def test_a_key_breaks_ties_at_random():
    scores = jnp.array([0.5, 2.0, 0.5, -1.0, 2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        orders = [attribution.order_of(scores, ties=jax.random.key(i)).tolist() for i in range(40)]
    assert {tuple(order) for order in orders} == {
        (*first, *second, 3) for first in ((1, 4), (4, 1)) for second in ((0, 2), (2, 0))
    }
    assert attribution.order_of(scores, ties=jax.random.key(3)).tolist() == orders[3]


def test_an_order_survives_its_scores():
    order = np.random.default_rng(0).permutation(50)
    scores = np.zeros(50, np.float32)
    scores[order] = 50 - np.arange(50)
    for ties in (None, jax.random.key(1)):
        np.testing.assert_array_equal(attribution.order_of(scores, ties=ties), order)


def test_players_that_moxi_single_cannot_tell_apart_share_their_places():
    v = lambda masks: masks @ jnp.array([1.0, 3.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])  # noqa: E731
    problem = attribution.problem(LINEAR, IMAGE, 2, GRID, v=v)
    scores = METHODS["moxi-single"].explain(None, problem)
    np.testing.assert_array_equal(scores, [7, 9, 7, 3, 7, 3, 3, 3, 3])
    with pytest.warns(UserWarning, match="8 of 9 players have the score of another"):
        jm.single_player_order(v, 9)


def test_a_problem_is_a_pytree():
    problem = make(jax.tree_util.Partial(linear_logits, jnp.ones((12, 12, 3, 4))))
    leaves, structure = jax.tree.flatten(problem)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    other = make(jax.tree_util.Partial(linear_logits, jnp.zeros((12, 12, 3, 4))), target=1)
    assert jax.tree.structure(other) == structure
    assert dataclasses.is_dataclass(problem)
