"""Near-certain probabilities: differences keep their digits where logits are there, and are told where they are not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.errors import RoundingWarning
from jaxmoxi.games.payoff import probability_remainders, split_remainders
from support.games import every_coalition

N = 5
REGIONS = jnp.arange(N)[None]
IMAGE = jnp.ones((1, N, 1))
ROW = 1 << np.arange(N)


def table_logits(rows):
    """A classifier whose answer for each coalition is a row of a table."""
    return jax.tree_util.Partial(_look_up, jnp.asarray(rows, jnp.float32))


def _look_up(rows, images):
    return rows[(images[:, 0, :, 0] > 0.5).astype(jnp.int32) @ jnp.asarray(ROW)]


def rows_of(link, gaps, seed=0):
    """float32[2^N, K] answers, and the exact probability of class 0 and its complement in float64.

    gaps: how far, about, the logit of class 0 is ahead, float[2^N].
    """
    rng = np.random.default_rng(seed)
    if link == "sigmoid":
        rows = np.stack([gaps, rng.normal(size=1 << N)], 1).astype(np.float32)
        x = rows[:, 0].astype(np.float64)
        return rows, 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    rows = np.concatenate([gaps[:, None], rng.normal(size=(1 << N, 3))], 1).astype(np.float32)
    against = np.exp(rows[:, 1:].astype(np.float64) - rows[:, :1]).sum(1)
    if link == "probabilities":
        shares = np.exp(rows.astype(np.float64) - rows.max(1, keepdims=True))
        rows = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        against = rows[:, 1:].astype(np.float64).sum(1) / rows[:, 0]
    return rows, 1 / (1 + against), against / (1 + against)


def game_of(rows, link, payoff="prob", target=0):
    return jm.pixel_value_fn(table_logits(rows), IMAGE, target, REGIONS, payoff=payoff, link=link)


def difference(p, complement, coalitions, signs):
    """A signed sum of probabilities in float64, of the complements where all are near 1, else by the nearer end."""
    rows = [sum(1 << i for i in c) for c in coalitions]
    whole = sum(s * (p[r] > 0.5) for s, r in zip(signs, rows, strict=True))
    return whole + sum(s * (-complement[r] if p[r] > 0.5 else p[r]) for s, r in zip(signs, rows, strict=True))


def pairs(p, complement, context):
    out = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            if i != j:
                t = set(context) - {i, j}
                coalitions = [t | {i, j}, t | {i}, t | {j}, t]
                out[i, j] = difference(p, complement, coalitions, [1, -1, -1, 1])
    return out


LINKS = ["softmax", "sigmoid", "probabilities"]
KINDS = {
    "certain": lambda rng: rng.uniform(16, 28, 1 << N),  # 1 - p from 1e-7 to 1e-12
    "nearly": lambda rng: rng.uniform(8, 12, 1 << N),
    "doubting": lambda rng: rng.uniform(-26, -16, 1 << N),
    "either": lambda rng: np.where(rng.random(1 << N) < 0.5, 1, -1) * rng.uniform(16, 26, 1 << N),
    "certain with most": lambda rng: np.where(every_coalition(N)[:, ::-1].sum(1) > 2, 20, -1) + rng.normal(size=1 << N),
}


@pytest.mark.parametrize(
    ("kind", "link"), [*((kind, "softmax") for kind in KINDS), ("certain", "sigmoid"), ("either", "probabilities")]
)
def test_differences_keep_their_digits(kind, link):
    rows, p, complement = rows_of(link, KINDS[kind](np.random.default_rng(3)))
    v, everyone = game_of(rows, link), set(range(N))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoundingWarning)
        for context in (set(), everyone, {1, 3}):
            mask = jnp.asarray([i in context for i in range(N)])
            want = pairs(p, complement, context)
            got = np.asarray(jm.pairwise_interactions(v, N, context=mask), np.float64)
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=4e-7 * np.abs(want).max())
        alone = [difference(p, complement, [{i}, set()], [1, -1]) for i in range(N)]
        last = [difference(p, complement, [everyone, everyone - {i}], [1, -1]) for i in range(N)]
        np.testing.assert_allclose(jm.self_context_shapley(v, N), alone, rtol=2e-5)
        np.testing.assert_allclose(jm.full_context_shapley(v, N), last, rtol=2e-5)


def test_the_payoff_itself_would_have_lost_them():
    rows, p, complement = rows_of("softmax", KINDS["certain"](np.random.default_rng(3)))
    values = np.asarray(jm.evaluate(game_of(rows, "softmax"), jnp.asarray(every_coalition(N))))
    assert len(np.unique(values)) <= 4
    assert len(np.unique(pairs(p, complement, set()))) > N


def test_wrapped_traced_and_removed_tokens_alike():
    rows, p, complement = rows_of("softmax", KINDS["certain"](np.random.default_rng(5)))
    v, want = game_of(rows, "softmax"), pairs(p, complement, set())
    spread = jm.shard_coalitions(v, jax.make_mesh((len(jax.devices()),), ("x",)))
    for got in (
        jm.pairwise_interactions(spread, N),
        jax.jit(lambda v: jm.pairwise_interactions(v, N))(v),
        jm.pairwise_interactions(v, N, batch_size=3),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6 * np.abs(want).max())
    assert game_of(rows, "softmax", "log_odds").remainders() is None
    assert v.remainders().with_payoff("prob") == v or not v.remainders().with_payoff("prob").remainder


@pytest.mark.parametrize("index", ["k-SII", "Co-Moebius"])
def test_exact_indices_keep_them_too(index):
    rows, _, complement = rows_of("softmax", KINDS["certain"](np.random.default_rng(4)))
    with jax.enable_x64(True):
        want = jm.interactions.from_table(jnp.asarray(-complement), index=index, order=2)
        want = np.asarray(want.values)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoundingWarning)
        got = jm.interactions.exact(game_of(rows, "softmax"), N, index=index, order=2)
    np.testing.assert_allclose(got.values, want, rtol=1e-4, atol=2e-6 * np.abs(want).max())
    np.testing.assert_allclose(got.baseline, 1.0)


def test_sampled_shapley_values_keep_them():
    rows, _, complement = rows_of("softmax", KINDS["certain"](np.random.default_rng(6)))
    got = jm.sampled_shapley(jax.random.key(0), game_of(rows, "softmax"), N, num_samples=20)
    np.testing.assert_allclose(got.values.sum(), complement[0] - complement[-1], rtol=1e-4)


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("kind", ["certain", "either", "certain with most"])
def test_greedy_chooses_by_what_rounding_hides(kind, insertion):
    rows, _, _ = rows_of("softmax", KINDS[kind](np.random.default_rng(7)))
    search = jm.greedy_insertion if insertion else jm.greedy_deletion
    found = search(game_of(rows, "softmax"), N)
    np.testing.assert_array_equal(found.order, search(game_of(rows, "softmax", "log_odds"), N).order)
    np.testing.assert_array_equal(found.values, found.probabilities)


@pytest.mark.parametrize("link", LINKS)
def test_remainders_are_p_less_the_nearer_end(link):
    gaps = np.linspace(-60, 60, 1 << N)
    rows, p, complement = rows_of(link, gaps)
    got = np.asarray(probability_remainders(jnp.asarray(rows), 0, link=link))
    kept = np.minimum(p, complement) > 1e-37  # what is rarer has no float32
    np.testing.assert_allclose(got[kept], np.where(p > 0.5, -complement, p)[kept], rtol=3e-6)
    whole, rest = split_remainders(jnp.asarray(got))
    np.testing.assert_array_equal(whole, p > 0.5)
    np.testing.assert_allclose(whole + rest, p, rtol=3e-6)


def test_remainders_at_the_ends():
    big = jnp.asarray([[jnp.inf, 0.0, 1.0], [-jnp.inf, 0.0, -jnp.inf], [300.0, 0.0, 0.0], [0.0, 300.0, 0.0]])
    got = np.asarray(probability_remainders(big, 0))
    np.testing.assert_array_equal(got, 0)
    np.testing.assert_array_equal(np.signbit(got), [True, False, True, False])
    assert np.isnan(probability_remainders(big, 3)).all()


@pytest.mark.parametrize("link", ["softmax", "probabilities"])
def test_remainders_have_the_derivative_of_the_probability(link):
    rows, _, _ = rows_of(link, np.linspace(-6, 6, 1 << N))
    far, _, _ = rows_of("softmax", np.linspace(-300, 300, 1 << N))

    def slope(of, rows):
        return jax.grad(lambda rows: of(rows, link).sum())(jnp.asarray(rows))

    ours = slope(lambda rows, link: probability_remainders(rows, 0, link=link), rows)
    want = slope(lambda rows, link: jm.payoff_values(rows, 0, "prob", link=link), rows)
    np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-6)
    if link != "probabilities":
        assert np.isfinite(slope(lambda rows, link: probability_remainders(rows, 0, link=link), far)).all()


def test_the_logarithm_of_a_near_certain_probability():
    rows, _, _ = rows_of("softmax", KINDS["certain"](np.random.default_rng(8)))
    for shift in (0, 200):  # what all logits have in common changes no probability
        got = jm.payoff_values(jnp.round(jnp.asarray(rows) * 1024) / 1024 + shift, 0, "log_prob")
        exact = np.round(rows.astype(np.float64) * 1024) / 1024
        against = np.exp(exact[:, 1:] - exact[:, :1]).sum(1)
        np.testing.assert_allclose(got, -np.log1p(against), rtol=5e-7)


def saturated(masks):
    """Probabilities near 1, with everything that float32 has of them."""
    return jax.nn.sigmoid(17 + masks @ jnp.arange(1.0, 7.0))


LOST = {
    "saturated": saturated,
    "all of them 1": lambda m: jax.nn.sigmoid(40 + m @ jnp.linspace(0, 1, m.shape[1])),
    "an offset": lambda m: 3e6 + (m @ jnp.linspace(0, 1, m.shape[1])) ** 2,
}
ANSWERS = {
    "additive": lambda m: m @ jnp.linspace(0.5, 2, m.shape[1]),
    "additive, far from 0": lambda m: 30 + m @ jnp.linspace(0.5, 2, m.shape[1]),
    "one player alone counts": lambda m: 1.0 * m[:, 2],
    "two interact, the others do nothing": lambda m: 5.0 + 1e-2 * m[:, 0] * m[:, 1],
    "all one number": lambda m: jnp.full(len(m), 0.7),
    "nothing at all": lambda m: jnp.zeros(len(m)),
    "a threshold": lambda m: 3.0 * (m.sum(1) >= 2),
    "small numbers": lambda m: 1e-9 * (m @ jnp.linspace(0.5, 2, m.shape[1])) ** 2,
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_below_rounding_is_told(name):
    with pytest.warns(RoundingWarning, match="of 15 pair interactions are no larger than the rounding") as told:
        jm.pairwise_interactions(LOST[name], 6)
    assert len(told) == 1
    assert told[0].filename == __file__


@pytest.mark.parametrize("context", [None, "full"])
@pytest.mark.parametrize("name", ANSWERS)
def test_small_interactions_that_are_an_answer_are_not(name, context):
    mask = None if context is None else jnp.ones(6, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jm.pairwise_interactions(ANSWERS[name], 6, context=mask)
        jm.self_context_shapley(ANSWERS[name], 6)
        jm.full_context_shapley(ANSWERS[name], 6)
