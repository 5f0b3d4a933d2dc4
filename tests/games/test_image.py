import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from support.games import vit_classifier
from support.search import games, tiny_model

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.normal(size=(8, 12, 3)), jnp.float32)
REGIONS = jm.grid_regions(8, 12, rows=2, cols=3)
WEIGHTS = jnp.asarray(RNG.normal(size=(8 * 12 * 3, 5)), jnp.float32)
MASKS = jnp.asarray(RNG.random((7, 6)) < 0.5)


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


LOGITS = jax.tree_util.Partial(linear, WEIGHTS)


def test_a_game_answers_alike_after_it_was_pickled():
    for fn in (LOGITS, tiny_model()[0].logits):
        image = jnp.zeros((32, 32, 3)) if fn is not LOGITS else IMAGE
        v = jm.pixel_value_fn(fn, image, 1, jm.grid_regions(*image.shape[:2], rows=2, cols=3))
        again = pickle.loads(pickle.dumps(v))
        np.testing.assert_array_equal(again(MASKS), v(MASKS))


@pytest.mark.parametrize("payoff", ["log_odds", "log_prob", "logit", "prob"])
def test_payoffs(payoff):
    logits = RNG.normal(size=(6, 4)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {"log_odds": np.log(p / (1 - p)), "log_prob": np.log(p), "logit": logits, "prob": p}[payoff]
    for target in range(4):
        got = jm.payoff_values(jnp.asarray(logits, jnp.float32), target, payoff)
        np.testing.assert_allclose(got, expected[:, target], rtol=1e-4, atol=1e-5)


def test_payoffs_stay_finite_where_the_probability_does_not():
    logits = jnp.asarray([[200.0, 0.0], [-200.0, 0.0]])
    assert jm.payoff_values(logits, 0, "log_odds").tolist() == [200.0, -200.0]
    assert jm.payoff_values(logits, 0, "log_prob").tolist() == [0.0, -200.0]
    assert jm.payoff_values(logits.astype(jnp.bfloat16), 0, "log_odds").dtype == jnp.float32


def test_payoffs_keep_their_digits_near_certainty():
    """1 - p is 3e-6, which a float32 p near 1 knows to 2 % at best; the values must order as the logits do."""
    gaps = np.log(3e-6) + np.linspace(0, 0.01, 50)
    logits = np.stack([np.zeros(50), gaps], 1).astype(np.float32)
    exact = -np.log1p(np.exp(logits[:, 1].astype(np.float64)))
    got = np.asarray(jm.payoff_values(jnp.asarray(logits), 0, "log_prob"))
    np.testing.assert_allclose(got, exact, rtol=1e-5)
    assert (np.diff(got) < 0).all()
    low = np.asarray(jm.payoff_values(jnp.asarray(logits), 1, "prob"))
    np.testing.assert_allclose(low, -np.expm1(exact), rtol=1e-5)


@pytest.mark.parametrize("target", [-1, 5, 1000])
def test_a_traced_target_that_is_no_class_is_nan(target):
    image = jnp.ones((8, 12, 3))
    v = jax.jit(lambda t: jm.pixel_value_fn(LOGITS, image, t, jm.grid_regions(8, 12, rows=2, cols=3)))(target)
    out = v.readout(jnp.ones((2, 6), bool))
    assert np.isnan(out.values).all()
    assert np.isnan(out.probabilities).all()
    assert not out.leads.any()
    with pytest.raises(jm.NaNValueError, match="of the start"):
        jm.greedy_insertion(v, 6)


@pytest.mark.parametrize("fault", ["none", "from -1", "from 1", "gap", "too many"])
@pytest.mark.parametrize("tokens", [True, False])
def test_traced_labels_that_are_no_players_are_nan(fault, tokens):
    regions = np.asarray(jm.grid_regions(32, 32, rows=2, cols=2))
    changed = {"from -1": regions - 1, "from 1": regions + 1, "gap": np.where(regions == 2, 3, regions)}
    players = 3 if fault == "too many" else 4
    model, image = tiny_model()

    @jax.jit
    def values(regions):
        pixels = jm.pixel_value_fn(model.logits, image, 1, regions)
        game = jm.token_value_fn(model, image, 1, regions) if tokens else pixels
        return game(jnp.ones((2, players), bool)), game.relaxed(jnp.ones((2, players)))

    for got in values(changed.get(fault, regions)):
        assert np.isnan(got).all() == (fault != "none")


FILLS = {
    "number": (0.5, np.full((8, 12, 3), 0.5)),
    "colour": ([0.1, 0.2, 0.3], np.broadcast_to(np.float32([0.1, 0.2, 0.3]), (8, 12, 3))),
    "mean": ("mean", np.broadcast_to(np.asarray(IMAGE).mean((0, 1)), (8, 12, 3))),
    "image": (np.asarray(IMAGE)[::-1], np.asarray(IMAGE)[::-1]),
    "blur": ("blur", np.asarray(jm.blur_image(IMAGE))),
}


@pytest.mark.parametrize("kind", FILLS)
def test_hidden_pixels_take_the_fill(kind):
    fill, pixels = FILLS[kind]
    v = jm.pixel_value_fn(LOGITS, IMAGE, 2, REGIONS, fill=fill, payoff="logit")
    for mask, value in zip(np.asarray(MASKS), v(MASKS), strict=True):
        shown = mask[np.asarray(REGIONS)][..., None]
        masked = np.where(shown, IMAGE, pixels)
        np.testing.assert_allclose(value, masked.ravel() @ np.asarray(WEIGHTS)[:, 2], rtol=2e-4, atol=1e-4)


def test_blur_keeps_colour_and_removes_detail():
    flat = jnp.full((16, 16, 3), 0.7)
    np.testing.assert_allclose(jm.blur_image(flat, sigma=2.0), flat, rtol=1e-6)
    impulse = jnp.zeros((31, 31, 3)).at[15, 15].set(1.0)
    blurred = np.asarray(jm.blur_image(impulse, sigma=2.0))
    np.testing.assert_allclose(blurred.sum((0, 1)), 1, rtol=1e-5)
    np.testing.assert_allclose(blurred[15, 15], 1 / (2 * np.pi * 4), rtol=0.01)
    np.testing.assert_allclose(blurred[15, 12] / blurred[15, 15], np.exp(-9 / 8), rtol=1e-4)
    np.testing.assert_allclose(blurred, blurred.transpose(1, 0, 2), rtol=1e-4, atol=1e-9)


def test_readout_is_one_story():
    v = jm.pixel_value_fn(LOGITS, IMAGE, 1, REGIONS)
    logits = np.asarray(v.logits(MASKS))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    out = v.readout(MASKS)
    np.testing.assert_allclose(out.values, v(MASKS))
    np.testing.assert_array_equal(v.leads(MASKS), logits.argmax(1) == 1)
    np.testing.assert_array_equal(out.leads, v.leads(MASKS))
    np.testing.assert_allclose(v.probabilities(MASKS), p[:, 1], rtol=1e-4, atol=1e-7)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)
        self.activation = jax.nn.relu

    def __call__(self, images):
        return self.head(self.activation(self.conv(images)).mean((1, 2)))


class EqxNet(eqx.Module):
    weights: jax.Array
    activation: object = jax.nn.relu

    def __call__(self, images):
        return self.activation(images.mean((1, 2))) @ self.weights

    def named(self, images):
        return self(images) * 2


def test_every_kind_of_classifier():
    net, eq = Net(nnx.Rngs(0)), EqxNet(WEIGHTS[:3])
    graph, state = nnx.split(net)
    kinds = {
        "closure": (lambda images: linear(WEIGHTS, images), LOGITS),
        "nnx module": (net, net),
        "nnx split": (jax.tree_util.Partial(lambda s, x: nnx.merge(graph, s)(x), state), net),
        "equinox module": (eq, eq),
        "equinox method": (eq.named, lambda x: eq(x) * 2),
    }
    for name, (fn, reference) in kinds.items():
        v = jm.pixel_value_fn(fn, IMAGE, 3, REGIONS, payoff="logit")
        value = jax.jit(lambda v, m: v(m))(v, jnp.ones((1, 6), bool))
        np.testing.assert_allclose(value, reference(IMAGE[None])[:, 3], rtol=1e-5, err_msg=name)


def test_other_weights_of_a_module_compile_nothing():
    traces = []

    class Counted(nnx.Module):
        def __init__(self, seed):
            self.head = nnx.Linear(3, 5, rngs=nnx.Rngs(seed))

        def logits(self, images):
            traces.append(1)
            return self.head(images.mean((1, 2)))

    results = []
    for seed in range(3):
        v = jm.pixel_value_fn(Counted(seed).logits, IMAGE * (seed + 1), seed, REGIONS)
        results.append(jm.greedy_deletion(v, 6).values)
        if seed == 0:
            first = len(traces)
    assert len(traces) == first
    assert not np.array_equal(results[0], results[1])


# Token removal

CONFIG = VisionTransformerConfig(
    image_size=24, patch_size=8, hidden_size=32, num_layers=3, num_heads=2, mlp_dim=48, num_classes=5
)
TOKEN_IMAGE = jnp.asarray(RNG.normal(size=(24, 24, 3)), jnp.float32)


def test_hidden_tokens_are_absent():
    model = vit_classifier(CONFIG)
    v = jm.token_value_fn(model, TOKEN_IMAGE, 2, payoff="logit")
    tokens = model.embed_tokens(TOKEN_IMAGE)
    masks = jnp.asarray(RNG.random((5, 9)) < 0.4).at[0].set(False).at[1].set(True)
    for mask, value in zip(np.asarray(masks), v(masks), strict=True):
        kept = jax.tree.map(lambda t, m=mask: t[np.flatnonzero(m)][None], tokens)  # really removed: a shorter sequence
        logits = model.encode_tokens(kept, jnp.ones((1, mask.sum()), bool))
        np.testing.assert_allclose(value, logits[0, 2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(v(masks)[1], model.logits(TOKEN_IMAGE[None])[0, 2], rtol=1e-4, atol=1e-5)


def test_max_visible_changes_no_value():
    v = jm.token_value_fn(vit_classifier(CONFIG), TOKEN_IMAGE, 2)
    masks = jnp.asarray([[i in s for i in range(9)] for s in [(), (3,), (0, 8), (2, 4, 5)]])
    for m in (3, 5, 9, None):
        np.testing.assert_allclose(v(masks, max_visible=m), v(masks), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(v(masks[:1], max_visible=0), v(masks[:1]), rtol=1e-4, atol=1e-5)


def test_what_absent_tokens_hold_is_irrelevant():
    model = vit_classifier(CONFIG)
    tokens = jax.tree.map(lambda t: jnp.repeat(t[None], 2, axis=0), model.embed_tokens(TOKEN_IMAGE))
    present = jnp.asarray([[True, False, True, True, False, True, False, False, True]] * 2)
    noisy = jax.tree.map(lambda t: t.at[1].set(jnp.where(present[1][:, None], t[1], 1e4)), tokens)
    logits = model.encode_tokens(noisy, present)
    np.testing.assert_array_equal(logits[0], logits[1])


def test_regions_over_tokens():
    model = vit_classifier(CONFIG)
    coarse = jm.grid_regions(24, 24, rows=3, cols=1)
    v = jm.token_value_fn(model, TOKEN_IMAGE, 1, coarse)
    single = jm.token_value_fn(model, TOKEN_IMAGE, 1)
    masks = jnp.asarray([[True, False, True], [False, True, False]])
    for m in (None, 2):
        np.testing.assert_allclose(v(masks, max_visible=m), single(jnp.repeat(masks, 3, axis=1)), rtol=1e-4)
    assert v.tokens_per_player == 3
    uneven = jm.token_value_fn(model, TOKEN_IMAGE, 1, jm.grid_regions(24, 24, rows=3, cols=2))
    assert uneven.tokens_per_player is None
    result = jm.greedy_insertion(uneven, 6)
    assert sorted(result.order.tolist()) == list(range(6))


def test_another_checkpoint_compiles_nothing(caplog):
    jax.clear_caches()
    orders = []
    with jax.log_compiles():
        for scale in (1.0, 1.7):
            model = vit_classifier(
                CONFIG,
                lambda name, shape, s=scale: (
                    s * np.sin(np.arange(np.prod(shape)) + len(name)).astype(np.float32).reshape(shape)
                ),
            )
            v = jm.token_value_fn(model, TOKEN_IMAGE * scale, 3)
            caplog.clear()
            orders.append(jm.greedy_insertion(v, 9).values)
            compiled = [r.message for r in caplog.records if "run_stage" in r.message]
            assert bool(compiled) == (scale == 1.0)
    assert not np.array_equal(*orders)


def test_vmap_over_images():
    model = vit_classifier(CONFIG)
    images = jnp.stack([TOKEN_IMAGE, TOKEN_IMAGE[::-1], TOKEN_IMAGE * 0.3])
    targets = jnp.asarray([0, 3, 4])
    both = jax.vmap(lambda x, t: jm.greedy_insertion(jm.token_value_fn(model, x, t), 9, stop=jm.Stop(size=4)))
    batch = jax.jit(both)(images, targets)
    for i in range(3):
        one = jm.greedy_insertion(jm.token_value_fn(model, images[i], targets[i]), 9, stop=jm.Stop(size=4))
        np.testing.assert_array_equal(batch.order[i], one.order)
        np.testing.assert_allclose(batch.values[i], one.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(image=IMAGE[None]), r"expected one image \[H, W, channels\]"),
        (dict(target=5), r"among the 5 classes \(0 .. 4\); got 5"),
        (dict(target=-1), "at least 0; got -1"),
        (dict(target=1.5), "expected the target as one class index"),
        (dict(regions=REGIONS[:4]), r"expected regions of integers \[8, 12\]"),
        (dict(regions=REGIONS + 1), "without a gap"),
        (dict(fill="black"), "'mean', 'blur', a number, one number a channel or an image; got 'black'"),
        (dict(fill=[1.0, 2.0]), r"fill of shape \(\), \(3,\) or"),
        (dict(payoff="odds"), "expected a payoff of log_odds, log_prob, logit, prob, margin; got 'odds'"),
        (dict(logits_fn=lambda images: images.mean((1, 2, 3))), r"returns logits \[B, K\].* got shape \[1\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_pixel_errors(arguments, message):
    given = dict(logits_fn=LOGITS, image=IMAGE, target=0, regions=REGIONS) | arguments
    with pytest.raises(ValueError, match=message):
        jm.pixel_value_fn(**given)


def test_token_errors():
    model = vit_classifier(CONFIG)
    with pytest.raises(ValueError, match="has no tokens to remove"):
        jm.token_value_fn(LOGITS, IMAGE, 0)
    with pytest.raises(ValueError, match=r"takes images \[24, 24, 3\]; got \[8, 12, 3\]"):
        jm.token_value_fn(model, IMAGE, 0)
    v = jm.token_value_fn(model, TOKEN_IMAGE, 0)
    with pytest.raises(ValueError, match="the value function has 9 players; got num_players .* for 49"):
        jm.greedy_insertion(v, 49)


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


def test_margin_says_who_leads(tiny):
    v = next(games(tiny))[0]
    masks = jax.random.bernoulli(jax.random.key(2), 0.5, (20, 16))
    margin = v.with_payoff("margin")
    logits = np.array(v.logits(masks))
    np.testing.assert_array_equal(margin(masks) > 0, v.leads(masks))
    np.testing.assert_allclose(margin(masks), logits[:, 2] - np.delete(logits, 2, 1).max(1), rtol=1e-6)
