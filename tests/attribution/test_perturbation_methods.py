import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.attribution import perturbation
from jaxmoxi.attribution.perturbation import dependence
from support.attribution import (
    BLOBS,
    GRID,
    IMAGE,
    LINEAR,
    SHALLOW,
    SQUARE,
    WEIGHTS,
    between,
    make,
    mean_over,
    token_problem,
    vit_model,
)
from support.games import SizedGame, exact_shapley, table_game

KEY = jax.random.key(0)
ADDITIVE = np.array([3.0, -1.0, 0.5, 2.0, -2.5, 0.0, 1.0, -0.25, 1.5], np.float32)


def own_game(v, num_players=9):
    """A problem whose game is a user's own; the model and the image do not matter to it."""
    regions = jnp.minimum(GRID, num_players - 1)
    return attribution.problem(LINEAR, IMAGE, 2, regions, v=v)


def additive():
    return own_game(SizedGame(jnp.asarray(ADDITIVE)))


def test_occlusion_of_a_linear_model_is_weight_times_distance():
    problem = make(LINEAR, regions=BLOBS, fill=0.5)
    lost = (WEIGHTS[..., 2] * (np.asarray(IMAGE) - 0.5)).sum(-1)
    expected = [lost[np.asarray(BLOBS) == i].sum() for i in range(5)]
    np.testing.assert_allclose(attribution.occlusion(None, problem), expected, rtol=1e-4, atol=1e-4)


def test_occlusion_hides_one_player_at_a_time():
    v, table = table_game(4)
    scores = attribution.occlusion(None, own_game(v, 4))
    np.testing.assert_allclose(scores, [table[15] - table[15 - 2**i] for i in range(4)], rtol=1e-5)


@pytest.mark.parametrize("cells", [3, 5, 12])
def test_rise_masks_are_enlarged_bilinearly_and_cut_out(cells):
    shape = (12, 10)
    steps = [-(-n // cells) for n in shape]
    codes = perturbation._draw(KEY, 40, 0.5, cells, shape)
    places = set()
    for code in np.asarray(codes):
        small, (rows, cols) = code[: cells**2].reshape(cells, cells), np.split(code[cells**2 :], steps[:1])
        assert rows.sum() == cols.sum() == 1
        top, left = rows.argmax(), cols.argmax()
        places.add((top, left))
        whole = between((cells + 1) * steps[0], cells) @ small @ between((cells + 1) * steps[1], cells).T
        mask = perturbation._enlarge(jnp.asarray(code), cells=cells, shape=shape)
        np.testing.assert_allclose(mask, whole[top : top + 12, left : left + 10], atol=1e-5)
    assert len(places) >= min(8, steps[0] * steps[1])
    np.testing.assert_allclose(codes[:, : cells**2].mean(), 0.5, atol=0.1)


def test_rise_of_a_pixel_game_by_its_formula():
    """With the same masks, everything behind them in NumPy: the blend with the fill, the probability, the sum."""
    fill, keep = 0.25, 0.4
    problem = make(SQUARE, regions=BLOBS, fill=fill, payoff="log_odds")
    total = np.zeros((12, 12))
    for code in perturbation._draw(KEY, 30, keep, 4, (12, 12)):
        mask = np.asarray(perturbation._enlarge(code, cells=4, shape=(12, 12)))
        image = fill + mask[..., None] * (np.asarray(IMAGE) - fill)
        logits = (0.1 * np.einsum("hwc,hwck->k", image, WEIGHTS)) ** 2
        total += mask * np.exp(logits[2]) / np.exp(logits).sum()
    expected = mean_over(total / (30 * keep), BLOBS)
    scores = attribution.rise(KEY, problem, num_samples=30, keep=keep, cells=4, batch_size=7)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    np.testing.assert_allclose(attribution.rise(KEY, problem, num_samples=30, keep=keep, cells=4), scores, rtol=1e-4)


def test_rise_of_coalitions_is_the_conditional_mean():
    """E[S_i] = E[v | i visible] = w_i + keep * (sum of the others), for an additive game."""
    keep, count = 0.25, 40_000
    scores = attribution.rise(KEY, additive(), num_samples=count, keep=keep)
    expected = ADDITIVE + keep * (ADDITIVE.sum() - ADDITIVE)
    error = 5 * np.abs(ADDITIVE).sum() / np.sqrt(count * keep)
    np.testing.assert_allclose(scores, expected, atol=error)
    np.testing.assert_array_equal(attribution.order_of(scores)[:3], [0, 3, 8])


def test_rise_of_tokens_takes_their_probabilities():
    """A payoff that is another number changes nothing."""
    model = vit_model(SHALLOW)
    problems = [
        attribution.problem(model, IMAGE, 2, GRID, v=jm.token_value_fn(model, IMAGE, 2, payoff=payoff))
        for payoff in ("log_odds", "prob", "logit")
    ]
    scores = [attribution.rise(KEY, p, num_samples=50) for p in problems]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-5)
    assert (scores[0] > 0).all()


def naive_dependence(masks, values):
    n = len(values)
    distances = [abs(values[i] - values[j]) for i in range(n) for j in range(i)]
    width = np.median(distances)
    outputs = np.array([[np.exp(-((a - b) ** 2) / (2 * width**2)) for b in values] for a in values])
    centre = np.eye(n) - 1 / n
    result = []
    for column in masks.T:
        inputs = np.array([[float(a == b) for b in column] for a in column])
        result.append(np.trace(inputs @ centre @ outputs @ centre) / (n - 1) ** 2)
    return result


@pytest.mark.parametrize("count", [2, 3, 25])
def test_hsic_is_the_naive_estimate(count):
    rng = np.random.default_rng(count)
    masks, values = rng.random((count, 4)) < 0.4, rng.normal(size=count).astype(np.float32)
    np.testing.assert_allclose(
        dependence(jnp.asarray(masks), jnp.asarray(values)), naive_dependence(masks, values), rtol=1e-4, atol=1e-7
    )


def test_hsic_ranks_an_additive_game_by_strength():
    """In either direction: the second strongest lowers the payoff."""
    scores = attribution.hsic(KEY, additive(), num_samples=600)
    np.testing.assert_array_equal(attribution.order_of(scores)[:3], [0, 4, 3])
    assert scores[5] < 0.2 * scores[0]


def test_hsic_of_a_constant_is_zero():
    game = own_game(SizedGame(jnp.zeros(9)))
    np.testing.assert_allclose(attribution.hsic(KEY, game, num_samples=20), 0, atol=1e-6)


def first_is_seen(masks):
    return jnp.where(masks.sum(0)[0] == len(masks) // 2, 0.0, jnp.nan) + masks[:, 1]


def test_hsic_shows_every_player_half_of_the_time():
    scores = attribution.hsic(KEY, own_game(first_is_seen), num_samples=31, batch_size=31)
    assert np.isfinite(scores).all()
    assert np.argmax(scores) == 1


def test_shapley_is_the_sampled_estimate_and_near_exact_where_players_do_not_interact():
    np.testing.assert_allclose(attribution.shapley(KEY, additive(), num_samples=2), ADDITIVE, atol=0.05)
    v, table = table_game(4)
    scores = attribution.shapley(KEY, own_game(v, 4), num_samples=3000)
    np.testing.assert_allclose(scores, exact_shapley(table, 4), atol=0.1)
    np.testing.assert_array_equal(scores, jm.sampled_shapley(KEY, v, 4, num_samples=3000).values)


def places(order):
    scores = np.zeros(len(order))
    scores[np.asarray(order)] = len(order) - np.arange(len(order))
    return scores


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("tokens", [True, False])
def test_moxi_scores_are_its_order(insertion, tokens):
    model = vit_model(SHALLOW)
    problem = token_problem(model) if tokens else make(model)
    search = jm.greedy_insertion if insertion else jm.greedy_deletion
    order = search(problem.v, 9).order
    np.testing.assert_array_equal(attribution.moxi(None, problem, insertion=insertion), places(order))
    single = jm.single_player_order(problem.v, 9, insertion=insertion)
    np.testing.assert_array_equal(attribution.moxi_single(None, problem, insertion=insertion), places(single))
    np.testing.assert_array_equal(attribution.moxi(None, problem, insertion=insertion, num_steps=20), places(order))


@pytest.mark.parametrize("insertion", [True, False])
def test_moxi_with_few_steps_fills_the_rest_in_rounds(insertion):
    """24 players that interact, two chosen one by one: rounds of two and three among the 22 that are left."""
    rng = np.random.default_rng(0)
    alone, pairs = rng.normal(size=24).astype(np.float32), rng.normal(size=(24, 24)).astype(np.float32)

    def game(masks):
        shown = masks.astype(jnp.float32)
        return shown @ alone + ((shown @ pairs) * shown).sum(1)

    size = np.asarray(IMAGE).shape[:2]
    regions = jnp.asarray(np.arange(size[0] * size[1]).reshape(size) % 24)
    problem = attribution.problem(LINEAR, IMAGE, 2, regions, v=game)
    search = jm.greedy_insertion if insertion else jm.greedy_deletion
    first = [int(p) for p in search(game, 24, stop=jm.Stop(size=2)).order[:2]]
    hidden = [] if insertion else list(first)
    for taken in (2, 3, 3, 3, 2, 3, 3, 3):
        left = [p for p in range(24) if p not in first + hidden]
        masks = np.array([[q not in [*hidden, p] for q in range(24)] for p in left])
        values = np.asarray(game(jnp.asarray(masks)))
        hidden += [left[i] for i in np.argsort(-values if insertion else values, kind="stable")[:taken]]
    want = places(first + hidden[::-1] if insertion else hidden)
    np.testing.assert_array_equal(attribution.moxi(None, problem, insertion=insertion, num_steps=2), want)


def nan_with_two(masks):
    return jnp.where(masks.sum(1) == 2, jnp.nan, masks.sum(1).astype(jnp.float32))


def nan_with_one(masks):
    return jnp.where(masks.sum(1) == 1, jnp.nan, 0.0)


def test_a_nan_is_never_a_rank():
    with pytest.raises(jm.NaNValueError):
        attribution.moxi(None, own_game(nan_with_two))
    with pytest.raises(jm.NaNValueError):
        attribution.moxi_single(None, own_game(nan_with_one))
    assert np.isnan(jax.jit(attribution.moxi)(None, own_game(nan_with_two))).all()
    assert np.isnan(jax.jit(attribution.moxi_single)(None, own_game(nan_with_one))).all()


@pytest.mark.parametrize(("insertion", "at"), [(True, 7), (False, 5)])
def test_a_nan_in_a_round_is_no_rank_either(insertion, at):
    """In the second of the rounds; those after it are clean."""

    def game(masks):
        return jnp.where(masks.sum(1) == at, jnp.nan, masks.sum(1).astype(jnp.float32))

    with pytest.raises(jm.NaNValueError, match="with the players .* hidden"):
        attribution.moxi(None, own_game(game), insertion=insertion, num_steps=2)
    found = jax.jit(lambda p: attribution.moxi(None, p, insertion=insertion, num_steps=2))(own_game(game))
    assert np.isnan(found).all()


def test_random_orders():
    problem = additive()
    scores = [attribution.random_scores(jax.random.key(i), problem) for i in range(200)]
    for row in scores[:5]:
        np.testing.assert_array_equal(np.sort(row), np.arange(1, 10))
    np.testing.assert_allclose(np.mean(scores, axis=0), 5, atol=5 * np.sqrt(80 / 12 / 200))


def test_what_cannot_be():
    problem = make(LINEAR)
    for explain in (attribution.rise, attribution.hsic, attribution.shapley, attribution.random_scores):
        with pytest.raises(ValueError, match="at random: give it a key|give it a key, such as jax.random.key"):
            explain(None, problem)
    with pytest.raises(ValueError, match="keep between 0 and 1 and cells from 1 to 12; got 0, 0.5 and 7"):
        attribution.rise(KEY, problem, num_samples=0)
    with pytest.raises(ValueError, match="got 4000, 1.0 and 7"):
        attribution.rise(KEY, problem, keep=1.0)
    with pytest.raises(ValueError, match="got 4000, 0.5 and 13"):
        attribution.rise(KEY, problem, cells=13)
    with pytest.raises(ValueError, match="num_samples must be at least 2; got 1"):
        attribution.hsic(KEY, problem, num_samples=1)
    with pytest.raises(ValueError, match="num_steps must be at least 1, or None for a full order; got 0"):
        attribution.moxi(None, problem, num_steps=0)
