"""Games in shapiq, and models of other libraries as logits functions."""

import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.sharding import Mesh

import jaxmoxi as jm
from jaxmoxi.bridges import as_shapiq_game, from_callable, from_equinox, from_linen, from_nnx, shapiq_game

IMAGE = jax.random.uniform(jax.random.key(0), (8, 8, 3))
IMAGES = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
REGIONS = jm.grid_regions(8, 8, rows=2, cols=3)
P, K = 6, 5


# shapiq


def quadratic(seed=0, num_players=P):
    """A game of known indices: own worth a, worth b of each pair, and c for nobody."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=num_players).astype(np.float32)
    b = np.triu(rng.normal(size=(num_players, num_players)), 1).astype(np.float32)

    def worth(a, b, masks):
        x = masks.astype(jnp.float32)
        return x @ a + jnp.einsum("ci,ij,cj->c", x, b, x) + 0.75

    return jax.tree_util.Partial(worth, jnp.asarray(a), jnp.asarray(b)), a, b


def every_coalition(num_players=P):
    return np.array(list(itertools.product([False, True], repeat=num_players)))


def test_shapiq_finds_the_indices_of_a_known_game():
    shapiq = pytest.importorskip("shapiq")
    v, a, b = quadratic()
    game = as_shapiq_game(v, P)
    assert isinstance(game, shapiq.Game)
    exact = shapiq.ExactComputer(game)
    shapley = exact("SV", order=1).get_n_order_values(1)
    np.testing.assert_allclose(shapley, a + (b + b.T).sum(1) / 2, atol=1e-5)
    np.testing.assert_allclose(exact("SII", order=2).get_n_order_values(2), b + b.T, atol=1e-5)
    np.testing.assert_allclose(shapley.sum(), game(game.grand_coalition[None])[0], atol=1e-5)
    np.testing.assert_allclose(jm.pairwise_interactions(v, P), b + b.T, atol=1e-5)  # order two: the same in any context


def test_shapiq_approximates_and_draws_it():
    shapiq = pytest.importorskip("shapiq")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    v, a, b = quadratic(1)
    game = as_shapiq_game(v, P, batch_size=16)
    estimate = shapiq.KernelSHAPIQ(P, max_order=2, index="k-SII", random_state=0).approximate(2**P, game)
    np.testing.assert_allclose(estimate.get_n_order_values(2), b + b.T, atol=1e-3)
    np.testing.assert_allclose(estimate.get_n_order_values(1), a, atol=1e-3)  # k-SII leaves to a player its own part
    figure, axes = shapiq.network_plot(estimate, show=False)
    assert len(axes.patches) + len(axes.lines) + len(axes.collections) > P
    pyplot.close(figure)


def test_its_values_are_those_of_evaluate():
    pytest.importorskip("shapiq")
    v = jm.pixel_value_fn(lambda images: jnp.tanh(images.mean((1, 2))) @ jnp.ones((3, K)).cumsum(1), IMAGE, 2, REGIONS)
    masks = every_coalition()
    values = np.asarray(jm.evaluate(v, masks), np.float64)
    raw, centred = as_shapiq_game(v, P, normalize=False), as_shapiq_game(v, P, batch_size=7)
    assert raw(masks).dtype == np.float64
    np.testing.assert_allclose(raw(masks), values, rtol=1e-6)
    np.testing.assert_allclose(centred(masks), values - values[0], rtol=1e-5, atol=1e-6)
    assert centred(masks[:1])[0] == 0
    np.testing.assert_allclose(raw([(), (0, 5)]), values[[0, 0b100001]], rtol=1e-6)
    np.testing.assert_allclose(raw(masks.astype(int)), values, rtol=1e-6)
    sharded = jm.shard_coalitions(v, Mesh(np.array(jax.devices()[:4]), ("d",)))
    np.testing.assert_allclose(as_shapiq_game(sharded, P, normalize=False)(masks), values, rtol=1e-6)


def test_one_compilation_serves_any_number_of_coalitions():
    pytest.importorskip("shapiq")
    traced = []

    def v(masks):
        traced.append(masks.shape)
        return masks.sum(1).astype(jnp.float32)

    game = as_shapiq_game(v, P, batch_size=16)
    seen = len(traced)
    for count in (1, 5, 16, 17, 64):
        masks = every_coalition()[-count:]
        np.testing.assert_array_equal(game(masks), masks.sum(1))
    assert len(traced) == seen
    assert (16, P) in traced


def test_a_game_that_cannot_be():
    pytest.importorskip("shapiq")
    v, _, _ = quadratic()
    with pytest.raises(ValueError, match="num_players must be an integer of at least 1; got 0"):
        as_shapiq_game(v, 0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        as_shapiq_game(v, P, batch_size=0)
    pixels = jm.pixel_value_fn(lambda images: images.mean((1, 2)), IMAGE, 0, REGIONS)
    with pytest.raises(ValueError, match="has 6 players; got num_players"):
        as_shapiq_game(pixels, 5)
    game = as_shapiq_game(lambda masks: jnp.where(masks[:, 1] & masks[:, 3], jnp.nan, 1.0), P)
    with pytest.raises(jm.NaNValueError, match=r"NaN for the coalition of players \[1, 3\]"):
        game(np.array([[0, 1, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0]], bool))


def test_without_shapiq(monkeypatch):
    shapiq_game._game_class.cache_clear()
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmoxi\[shapiq\]'"):
        as_shapiq_game(quadratic()[0], P)


# Models, each with dropout and batch normalisation where its library has them


class LinenNet(linen.Module):
    width: int = 4
    traces = []  # of every instance  # noqa: RUF012

    @linen.compact
    def __call__(self, images, train=True):
        self.traces.append(images.shape)
        x = linen.BatchNorm(use_running_average=not train)(linen.Conv(self.width, (3, 3))(images))
        x = linen.Dropout(0.5, deterministic=not train)(linen.relu(x))
        return linen.Dense(K)(x.mean((1, 2)))


class LinenDropout(linen.Module):
    @linen.compact
    def __call__(self, images):
        return linen.Dense(K)(linen.Dropout(0.5, deterministic=False)(images.mean((1, 2))))


class NnxNet(nnx.Module):
    traces = []  # noqa: RUF012

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(4, K, rngs=rngs)

    def __call__(self, images, scale=1.0):
        self.traces.append(images.shape)
        x = self.dropout(nnx.relu(self.norm(self.conv(images))))
        return self.head(x.mean((1, 2))) * scale


class EqxNet(eqx.Module):
    """One image [3, H, W]."""

    conv: eqx.nn.Conv2d
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear
    activation: object = jax.nn.relu

    def __init__(self, seed):
        keys = jax.random.split(jax.random.key(seed))
        self.conv, self.dropout = eqx.nn.Conv2d(3, 4, 3, key=keys[0]), eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, K, key=keys[1])

    def __call__(self, x, key=None):
        EQX_TRACES.append(x.shape)
        return self.head(self.dropout(self.activation(self.conv(x)), key=key).mean((1, 2)))


class EqxNormNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, seed):
        keys = jax.random.split(jax.random.key(seed))
        self.conv = eqx.nn.Conv2d(3, 4, 3, key=keys[0])
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        self.head = eqx.nn.Linear(4, K, key=keys[1])

    def __call__(self, x, state):
        EQX_TRACES.append(x.shape)
        x, state = self.norm(self.conv(x), state)
        return self.head(jax.nn.relu(x).mean((1, 2))), state


EQX_TRACES = []


def linen_case(seed):
    module = LinenNet()
    variables = module.init({"params": jax.random.key(seed), "dropout": jax.random.key(0)}, IMAGES)
    # Statistics of training, so that a batch's own would show.
    _, updates = module.apply(variables, IMAGES * 3, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
    variables = {**variables, **updates}
    return from_linen(module, variables, train=False), lambda x: module.apply(variables, x, train=False), module.traces


def nnx_case(seed):
    model = NnxNet(seed)
    model(IMAGES * 3)
    reference = nnx.clone(model)
    reference.eval()
    return from_nnx(model), reference, model.traces


def equinox_case(seed):
    model = EqxNet(seed)
    still = eqx.nn.inference_mode(model)
    return from_equinox(model), lambda x: jax.vmap(still)(x.transpose(0, 3, 1, 2)), EQX_TRACES


def equinox_state_case(seed):
    model, state = eqx.nn.make_with_state(EqxNormNet)(seed)
    over = {"axis_name": "batch", "in_axes": (0, None), "out_axes": (0, None)}
    _, state = jax.vmap(model, **over)(IMAGES.transpose(0, 3, 1, 2) * 3, state)
    still = eqx.nn.inference_mode(model)
    return (
        from_equinox(model, state=state),
        lambda x: jax.vmap(still, **over)(x.transpose(0, 3, 1, 2), state)[0],
        EQX_TRACES,
    )


CASES = {"linen": linen_case, "nnx": nnx_case, "equinox": equinox_case, "equinox with state": equinox_state_case}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_adapter_is_the_model_in_evaluation(case):
    logits_fn, reference, _ = case(0)
    logits = logits_fn(IMAGES)
    assert logits.shape == (4, K)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, reference(IMAGES), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(logits, logits_fn(IMAGES))  # nothing is drawn, nothing is kept
    np.testing.assert_allclose(logits[1:2], logits_fn(IMAGES[1:2]), rtol=1e-5, atol=1e-6)  # nor read off the batch
    np.testing.assert_allclose(logits, jax.jit(lambda f, x: f(x))(logits_fn, IMAGES), rtol=1e-5, atol=1e-6)
    mapped = jax.vmap(logits_fn)(IMAGES[:, None])[:, 0]
    np.testing.assert_allclose(logits, mapped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_other_weights_compile_nothing(case):
    results, counts = [], []
    for seed in range(3):
        logits_fn, reference, traces = case(seed)
        leaves = jax.tree.leaves(logits_fn)
        assert leaves
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        before = len(traces)
        r = jm.greedy_insertion(jm.pixel_value_fn(logits_fn, IMAGE * (seed + 1), seed, REGIONS), P)
        counts.append(len(traces) - before)
        results.append(r.values)
        whole = jm.payoff_values(reference(IMAGE[None] * (seed + 1)), seed, "log_odds")
        np.testing.assert_allclose(r.values[-1:], whole, rtol=1e-4, atol=1e-5)
    assert counts[0] > 0
    assert counts[1:] == [0, 0]
    assert not np.allclose(results[0], results[1])


def test_linen_in_training_is_refused():
    module = LinenNet()
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, IMAGES)
    with pytest.raises(ValueError, match=r"LinenNet is in training mode.*train=False"):
        jm.pixel_value_fn(from_linen(module, variables), IMAGE, 0, REGIONS)
    module = LinenDropout()
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, IMAGES)
    with pytest.raises(ValueError, match=r"LinenDropout is in training mode.*deterministic=True"):
        jm.pixel_value_fn(from_linen(module, variables), IMAGE, 0, REGIONS)
    for training in ({"rngs": {"dropout": jax.random.key(0)}}, {"mutable": ["batch_stats"]}):
        with pytest.raises(ValueError, match=f"got {next(iter(training))}, which only training needs"):
            from_linen(module, variables, **training)


def test_nnx_leaves_the_model_alone():
    model = NnxNet(0)
    logits_fn = from_nnx(model)
    assert not model.norm.use_running_average
    assert not model.dropout.deterministic
    before = np.asarray(logits_fn(IMAGES))
    model.head.bias[...] = model.head.bias[...] + 1
    model(IMAGES * 2)  # moves its statistics
    np.testing.assert_array_equal(logits_fn(IMAGES), before)
    np.testing.assert_allclose(from_nnx(model, scale=2.0)(IMAGES), from_nnx(model)(IMAGES) * 2, rtol=1e-5)


def test_options_of_equinox():
    class Batched(eqx.Module):
        head: jax.Array
        flip: bool

        def __call__(self, images, *, scale=1):
            rows = images if images.ndim == 4 else images[None]
            out = rows.mean((2, 3) if images.shape[-3] == 3 else (1, 2)) @ self.head
            out = (-out if self.flip else out) * scale
            return out if images.ndim == 4 else out[0]

    head = jax.random.normal(jax.random.key(0), (3, K))
    expected = IMAGES.mean((1, 2)) @ head
    for batched, channels_first, flip in itertools.product([False, True], repeat=3):
        fn = from_equinox(Batched(head, flip), batched=batched, channels_first=channels_first, scale=2)
        want = expected * (-2 if flip else 2)
        v = jm.pixel_value_fn(fn, IMAGES[0], 3, REGIONS, payoff="logit")
        np.testing.assert_allclose(jm.evaluate(v, jnp.ones((1, P), bool)), want[:1, 3], rtol=1e-5)
        np.testing.assert_allclose(fn(IMAGES), want, rtol=1e-5)


def test_what_the_adapters_refuse():
    linen_module, nnx_model, eqx_model = linen.Dense(K), nnx.Linear(3, K, rngs=nnx.Rngs(0)), EqxNet(0)
    params = linen_module.init(jax.random.key(0), IMAGES)["params"]
    with pytest.raises(ValueError, match=r"from_linen expected a flax.linen.Module, got Linear; there are from_linen"):
        from_linen(nnx_model, {"params": params})
    with pytest.raises(ValueError, match=r"from_nnx expected a callable flax.nnx.Module, got Dense"):
        from_nnx(linen_module)
    with pytest.raises(ValueError, match=r"from_equinox expected a callable equinox.Module, got Linear"):
        from_equinox(nnx_model)
    with pytest.raises(ValueError, match=r"expected the variables that module.init returns.*got \['bias', 'kernel'\]"):
        from_linen(linen_module, params)
    with pytest.raises(ValueError, match=r"keyword argument key to be hashable"):
        from_equinox(eqx_model, key=jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"returns logits \[B, K\] for images \[1, 8, 8, 3\]; got shape \[1, 8, 8, 5\]"
    ):
        jm.pixel_value_fn(from_linen(linen_module, {"params": params}), IMAGE, 0, REGIONS)

    class Pair(nnx.Module):
        def __call__(self, images):
            return images.mean((1, 2)), images

    with pytest.raises(ValueError, match=r"got tuple. Where they are part of something larger"):
        jm.pixel_value_fn(from_nnx(Pair()), IMAGE, 0, REGIONS)


def test_without_equinox(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ImportError, match="pip install equinox"):
        from_equinox(object())


# Callables

WEIGHTS = np.random.default_rng(0).normal(size=(8 * 8 * 3, K)).astype(np.float32)


def numpy_model(images):
    assert type(images) is np.ndarray
    assert images.dtype == np.float32
    images -= 0.5  # as preprocessing written for arrays of its own may do
    return np.tanh(images.reshape(len(images), -1) @ WEIGHTS).astype(np.float64)


def jax_model(images):
    return jnp.tanh((images - 0.5).reshape(len(images), -1) @ WEIGHTS)


def test_a_callable_gives_what_the_same_model_in_jax_gives():
    fn = from_callable(numpy_model, K)
    np.testing.assert_allclose(fn(IMAGES), jax_model(IMAGES), rtol=1e-4, atol=1e-5)
    ours = jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, fill="mean")
    theirs = jm.pixel_value_fn(jax_model, IMAGE, 1, REGIONS, fill="mean")
    a, b = (jm.greedy_insertion(v, P, batch_size=4) for v in (ours, theirs))
    np.testing.assert_array_equal(a.order, b.order)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-4)
    masks = every_coalition()
    np.testing.assert_allclose(jm.evaluate(ours, masks, batch_size=10), jm.evaluate(theirs, masks), atol=1e-4)


def test_a_callable_under_jit_and_vmap():
    batches = []

    def model(images):
        batches.append(len(images))
        return numpy_model(images)

    def order(fn):
        def one(image):
            return jm.greedy_insertion(jm.pixel_value_fn(fn, image, 1, REGIONS), P, batch_size=6).order

        return jax.jit(jax.vmap(one))(IMAGES)

    np.testing.assert_array_equal(order(from_callable(model, K)), order(jax_model))
    assert batches[0] == 1  # the trial
    assert set(batches[1:]) == {6 * len(IMAGES)}  # a chunk of every image at once


def test_a_callable_on_every_device():
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    masks = every_coalition()
    sharded = jm.shard_coalitions(jm.pixel_value_fn(from_callable(numpy_model, K), IMAGE, 1, REGIONS), mesh)
    expected = jm.evaluate(jm.pixel_value_fn(jax_model, IMAGE, 1, REGIONS), masks)
    np.testing.assert_allclose(jm.evaluate(sharded, masks), expected, atol=1e-4)


def test_channels_first_and_large_images():
    shapes = []

    def model(images):
        shapes.append(images.shape)
        assert images.flags.c_contiguous
        return images.mean((2, 3)) @ np.arange(3 * K, dtype=np.float32).reshape(3, K)

    image = jax.random.uniform(jax.random.key(2), (224, 200, 3))
    v = jm.pixel_value_fn(
        from_callable(model, K, channels_first=True), image, 1, jm.grid_regions(224, 200, rows=2, cols=3)
    )
    masks = every_coalition()[-16:]
    expected = jm.pixel_value_fn(
        lambda x: x.mean((1, 2)) @ jnp.arange(3.0 * K).reshape(3, K),
        image,
        1,
        jm.grid_regions(224, 200, rows=2, cols=3),
    )
    np.testing.assert_allclose(jm.evaluate(v, masks, batch_size=8), jm.evaluate(expected, masks), rtol=1e-4, atol=1e-4)
    assert set(shapes) == {(1, 3, 224, 200), (8, 3, 224, 200)}


def test_weights_changed_in_place_compile_nothing():
    weights = WEIGHTS.copy()
    fn = from_callable(lambda images: images.reshape(len(images), -1) @ weights, K)
    compiled = jax.jit(lambda v, m: v(m))
    v = jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, payoff="logit")
    before = compiled(v, jnp.ones((1, P), bool))
    weights *= 2
    after = compiled(jm.pixel_value_fn(fn, IMAGE, 1, REGIONS, payoff="logit"), jnp.ones((1, P), bool))
    np.testing.assert_allclose(after, before * 2, rtol=1e-5)
    assert compiled._cache_size() == 1


def test_a_callable_that_computes_in_jax():
    fn = from_callable(lambda images: np.asarray(jnp.asarray(images).mean((1, 2))), 3)
    traced = jax.jit(lambda image: jm.pixel_value_fn(fn, image, 1, REGIONS, payoff="logit").image)(IMAGE)
    np.testing.assert_array_equal(traced, IMAGE)  # the trial call, inside a trace, met no tracer


def test_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(144, K)
    )

    def logits(images):
        with torch.no_grad():
            return model(torch.from_numpy(images))

    model.eval()
    fn = from_callable(logits, K, channels_first=True)
    expected = logits(np.asarray(IMAGES).transpose(0, 3, 1, 2).copy()).numpy()
    np.testing.assert_allclose(jax.jit(fn)(IMAGES), expected, rtol=1e-4, atol=1e-5)
    r = jm.greedy_deletion(jm.pixel_value_fn(fn, IMAGE, 1, REGIONS), P)
    assert sorted(r.order.tolist()) == list(range(P))

    with_gradients = from_callable(lambda images: model(torch.from_numpy(images)), K, channels_first=True)
    with pytest.raises(ValueError, match=r"got Tensor .*torch.no_grad"):
        jm.pixel_value_fn(with_gradients, IMAGE, 1, REGIONS)
    model.train()
    with pytest.raises(ValueError, match=r"this Sequential is in training: call its eval\(\)"):
        from_callable(model, K)


def test_what_a_callable_must_return(unchecked):
    for returned, message in (
        (lambda n: np.zeros((n, K + 1)), r"expected fn to return logits of shape \[1, 5\].*got shape \[1, 6\]"),
        (lambda n: np.zeros((n, K)).squeeze(), r"got shape \[5\]"),
        (lambda n: ["a"] * n, r"expected fn to return what numpy.asarray takes.*got list"),
    ):
        fn = from_callable(lambda images, returned=returned: returned(len(images)), K)
        with pytest.raises(ValueError, match=message):
            jm.pixel_value_fn(fn, IMAGE, 1, REGIONS)
    later = from_callable(lambda images: np.zeros((len(images), K)) if len(images) == 1 else np.zeros((2, 2)), K)
    with pytest.raises(Exception, match=r"expected fn to return logits of shape \[4, 5\]"):
        jax.block_until_ready(jax.jit(later)(IMAGES))
    with pytest.raises(ValueError, match="num_classes must be at least 2; got 1"):
        from_callable(numpy_model, 1)
    with pytest.raises(ValueError, match="expected a function of images.*got int"):
        from_callable(3, K)
    with pytest.raises(ValueError, match="expected fn to be hashable"):
        from_callable(type("F", (), {"__hash__": None, "__call__": lambda self, x: x})(), K)
