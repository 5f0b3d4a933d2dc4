"""Transformers whose heads read patch tokens, on some of their tokens: against NumPy, by the definition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.models.networks.beit import Beit, BeitConfig
from jaxmoxi.models.networks.dinov2 import Dinov2, Dinov2Config
from support.attribution import IMAGE, make, wrap

SMALL = dict(image_size=12, patch_size=4, hidden_size=12, num_layers=3, num_heads=3, mlp_dim=16, num_classes=4)
BEIT = BeitConfig(**SMALL)
CONFIGS = {
    "beit": BEIT,
    "beit, class token": dataclasses.replace(BEIT, reads="class", norm_last=False),
    "dinov2, registers, gated": Dinov2Config(**SMALL, num_registers=2, gated=True, qkv_bias=False),
    "dinov2, one layer": Dinov2Config(**SMALL | dict(num_layers=1), reads="mean", norm_last=True),
}
MASKS = np.array([[1] * 9, [0, 1, 1, 0, 1, 0, 0, 1, 0], [0] * 8 + [1], [0] * 9], bool)


@functools.cache
def model(name):
    """A Classifier of this config with weights that are all random, tables and norms as well."""
    config = CONFIGS[name]
    network = Beit if isinstance(config, BeitConfig) else Dinov2
    rng = np.random.default_rng(0)
    state = nnx.state(network(config, rngs=nnx.Rngs(0)), nnx.Param)
    return wrap(config, jax.tree.map(lambda a: a + jnp.asarray(0.4 * rng.normal(size=a.shape), jnp.float32), state))


def reference(model, gates, places, attentions=None):
    """The logits of the patches at `places` alone, in float64; a gate multiplies every attention weight on a patch."""
    config, net = model.config, model.network()
    value = functools.partial(np.asarray, dtype=np.float64)

    def norm(x, of, at=()):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.norm_eps)
        return x * value(of.scale[...])[at] + value(of.bias[...])[at]

    def linear(x, of, at):
        y = x @ value(of.kernel[...])[at]
        return y if of.bias is None else y + value(of.bias[...])[at]

    rows, cols = config.grid
    blocks, count, heads = net.blocks, config.num_prefix, config.num_heads
    x = np.concatenate([value(net.prefix[...]), value(net.embed(IMAGE[None]).x[0])[places]])
    gates = np.concatenate([np.ones(count), gates])
    for i in range(config.num_layers):
        parts = np.split(linear(norm(x, blocks.norm1, i), blocks.qkv, i), 3, -1)
        query, key, values = (p.reshape(len(x), heads, -1) for p in parts)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
        if config.relative:
            table = value(blocks.table[...])[i]
            inner = table[:-3].reshape(2 * rows - 1, 2 * cols - 1, heads)
            for q in range(len(x)):
                for k in range(len(x)):
                    if q and k:
                        a, b = divmod(places[q - 1], cols), divmod(places[k - 1], cols)
                        scores[:, q, k] += inner[a[0] - b[0] + rows - 1, a[1] - b[1] + cols - 1]
                    else:  # the table's last rows: from the class token, to it, and from it to itself
                        scores[:, q, k] += table[-1 if q == k else -3 if q == 0 else -2]
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * gates
        weights /= weights.sum(-1, keepdims=True)
        if attentions is not None:
            attentions.append(weights)
        x = x + linear(np.einsum("hqk,khd->qhd", weights, values).reshape(x.shape), blocks.proj, i)
        inner = linear(norm(x, blocks.norm2, i), blocks.fc1, i)
        if config.gated:
            gate, inner = np.split(inner, 2, -1)
            inner = inner * gate / (1 + np.exp(-gate))
        else:
            inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = x + linear(inner, blocks.fc2, i)
    y = x if config.norm_last else norm(x, net.norm)
    total = gates[count:].sum()
    mean = gates[count:] @ y[count:] / (total if total else 1)
    read = np.concatenate([y[0]] * ("class" in config.reads) + [mean] * ("mean" in config.reads))
    return linear(norm(read, net.norm) if config.norm_last else read, net.head, ())


def encode(model, tokens, present):
    return jax.jit(lambda m, t, p: m.encode_tokens(t, p))(model, tokens, present)


def rows_of(tokens, order):
    return jax.tree.map(lambda t: t[order], tokens)


@pytest.mark.parametrize("name", CONFIGS)
def test_absent_tokens_leave_no_trace(name):
    tokens = model(name).embed_tokens(IMAGE)
    every = np.tile(np.arange(9), (len(MASKS), 1))
    logits = encode(model(name), rows_of(tokens, every), jnp.asarray(MASKS))
    expected = [reference(model(name), np.ones(m.sum()), np.flatnonzero(m)) for m in MASKS]
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)
    if name == "beit":
        # In another order, with padding whose place is anybody's: the positions of the tokens go with them.
        order = np.array([[7, 2, 0, 4, 1], [8, 8, 8, 3, 3]])
        present = jnp.asarray([[1, 1, 0, 1, 1], [0, 1, 0, 0, 0]], bool)
        logits = encode(model(name), rows_of(tokens, order), present)
        np.testing.assert_allclose(logits, np.array(expected)[[1, 2]], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["beit", "dinov2, registers, gated"])
def test_gates_multiply_attention_and_mean(name):
    tokens, rng = model(name).embed_tokens(IMAGE), np.random.default_rng(1)
    gates = np.stack([rng.uniform(size=9), MASKS[1], MASKS[3]]).astype(np.float32)
    every = np.tile(np.arange(9), (3, 1))
    logits = encode(model(name), rows_of(tokens, every), jnp.asarray(gates))
    expected = [reference(model(name), g, np.arange(9)) for g in gates]
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)
    slope = jax.jit(jax.grad(lambda g: model(name).encode_tokens(rows_of(tokens, every), g).sum()))(jnp.asarray(gates))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", ["beit", "beit, class token", "dinov2, registers, gated"])
def test_features_and_classify_are_the_logits(name):
    images = jnp.stack([IMAGE, -IMAGE])

    @jax.jit
    def cut(model, images):
        features = model.features(images)
        logits, pull = jax.vjp(lambda maps: model.classify(features._replace(maps=maps)), features.maps)
        return features.maps, logits, pull(jnp.ones_like(logits))[0], model.logits(images)

    maps, logits, slope, expected = cut(model(name), images)
    assert maps.shape == (2, 3, 3, 12)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert (np.abs(slope).max((-1, -2, -3)) > 0).all()
    np.testing.assert_allclose(logits[0], reference(model(name), np.ones(9), np.arange(9)), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["beit", "dinov2, registers, gated"])
def test_rollout_follows_what_the_logits_read(name):
    config, attentions = CONFIGS[name], []
    reference(model(name), np.ones(9), np.arange(9), attentions)
    np.testing.assert_allclose(model(name).attention_maps(IMAGE), attentions, rtol=2e-3, atol=1e-5)
    flow = np.eye(config.num_prefix + 9)
    for weights in attentions:
        mixed = weights.mean(0) + np.eye(len(flow))
        flow = mixed / mixed.sum(1, keepdims=True) @ flow
    rows = [flow[0]] * ("class" in config.reads) + [flow[config.num_prefix :].mean(0)]
    scores = attribution.attention_rollout(None, make(model(name)))
    np.testing.assert_allclose(scores, np.mean(rows, 0)[config.num_prefix :], rtol=1e-3)


def test_games_and_other_methods_take_them():
    v = jm.token_value_fn(model("beit"), IMAGE, 1)
    masks = jnp.eye(9, dtype=bool)
    sized, whole = jax.jit(lambda v, m: (v(m, max_visible=1), v(m)))(v, masks)
    np.testing.assert_allclose(sized, whole, rtol=1e-4, atol=1e-4)
    assert jm.greedy_insertion(v, 9).order[0] == np.argmax(whole)
    assert np.isfinite(attribution.grad_cam(None, make(model("dinov2, registers, gated")))).all()


def test_jit_vmap_batch_and_bfloat16():
    net, images = model("beit"), jnp.stack([IMAGE, -IMAGE])
    logits_of = jax.jit(type(net).logits)
    expected = logits_of(net, images)
    alone = jax.jit(jax.vmap(lambda x: net.logits(x[None])[0]))(images)
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-4)
    half = net.astype("bfloat16")
    assert half.params["head"]["kernel"][...].dtype == half.params["norm"]["scale"][...].dtype == jnp.float32
    logits = logits_of(half, images)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=13), "image_size 13 is not a multiple of patch_size 4"),
        (dict(hidden_size=10), "hidden_size 10 is not a multiple of num_heads 3"),
        (dict(num_registers=-1), "num_registers must be a whole number of at least 0; got -1"),
        (dict(num_layers=0), "num_layers must be a whole number of at least 1; got 0"),
        (dict(activation="sin"), "expected an activation of gelu"),
        (dict(relative=True, num_registers=1), "relative position biases are of the class token and the patches"),
    ],
)
def test_configs_that_make_no_network(changes, message):
    with pytest.raises(jm.InputError, match=message):
        Dinov2Config(**SMALL | changes)
