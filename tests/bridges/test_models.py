"""Models of Linen, NNX and Equinox as logits functions."""

import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxmoxi as jm
from jaxmoxi.bridges import from_equinox, from_linen, from_nnx

IMAGE = jax.random.uniform(jax.random.key(0), (8, 8, 3))
IMAGES = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
REGIONS = jm.grid_regions(8, 8, rows=2, cols=3)
P, K = 6, 5


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
    with pytest.raises(ValueError, match=r"returns logits \[B, K\] for 1 images.* got shape \[1, 8, 8, 5\]"):
        jm.pixel_value_fn(from_linen(linen_module, {"params": params}), IMAGE, 0, REGIONS)

    class Pair(nnx.Module):
        def __call__(self, images):
            return images.mean((1, 2)), images.max((1, 2))

    with pytest.raises(ValueError, match=r"got a tuple of shape \[1, 3\], shape \[1, 3\]. Return the logits alone"):
        jm.pixel_value_fn(from_nnx(Pair()), IMAGE, 0, REGIONS)


def test_without_equinox(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ImportError, match="pip install equinox"):
        from_equinox(object())


# Callables
