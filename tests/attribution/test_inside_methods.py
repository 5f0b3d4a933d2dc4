"""Grad-CAM, Grad-CAM++ and attention rollout, and what they read inside the networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.models.networks.trainable_resnet import ResidualNetConfig, ResNet
from support.attribution import (
    BLOBS,
    CONFIG,
    GRID,
    IMAGE,
    LINEAR,
    between,
    cnn_model,
    make,
    mean_over,
    tiny_net,
    vit_model,
)

DISTILLED = dataclasses.replace(CONFIG, distilled=True)
VARIANTS = {
    "vit": CONFIG,
    "one layer": dataclasses.replace(CONFIG, num_layers=1),
    "distilled": DISTILLED,
    "teacher": dataclasses.replace(DISTILLED, teacher=True),
}
LARGE = jnp.asarray(np.random.default_rng(4).normal(size=(64, 64, 3)), jnp.float32)


def enlarged(heat, regions):
    height, width = regions.shape
    rows, cols = (between(n, m) for n, m in zip((height, width), heat.shape, strict=True))
    return mean_over(rows @ np.maximum(heat, 0) @ cols.T, regions)


def grad_cam(maps, slope, regions):
    return enlarged((maps * slope.mean((0, 1))).sum(-1), regions)


def grad_cam_plus_plus(maps, slope, regions):
    """As the paper writes it, with powers."""
    total = maps.sum((0, 1))
    below = 2 * slope**2 + total * slope**3
    share = np.divide(slope**2, below, out=np.zeros_like(slope), where=below != 0)
    return enlarged((maps * (share * np.maximum(slope, 0)).sum((0, 1))).sum(-1), regions)


METHODS = {attribution.grad_cam: grad_cam, attribution.grad_cam_plus_plus: grad_cam_plus_plus}


@pytest.mark.parametrize("explain", METHODS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("regions", [GRID, BLOBS], ids=["grid", "blobs"])
@pytest.mark.parametrize("target", [0, 2])
def test_cams_of_a_network_with_its_own_maps(explain, regions, target):
    """From the features and their whole Jacobian, in NumPy."""
    net = tiny_net()
    maps = net.features(IMAGE[None])
    slope = jax.jacobian(net.classify)(maps)[0, target, 0]
    expected = METHODS[explain](np.asarray(maps[0], np.float64), np.asarray(slope, np.float64), np.asarray(regions))
    assert (expected > 0).any()
    scores = explain(None, make(net, regions=regions, target=target))
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5 * expected.max())


@pytest.mark.parametrize("variant", ["vit", "teacher"])
def test_cams_of_a_vision_transformer(variant):
    model = vit_model(VARIANTS[variant])

    @jax.jit
    def look_inside(model, image):
        features = model.features(image[None])
        slope = jax.jacobian(lambda maps: model.classify(features._replace(maps=maps)))(features.maps)
        return features.maps[0], slope[0, 1, 0]

    maps, slope = (np.asarray(x, np.float64) for x in look_inside(model, IMAGE))
    for explain, by_hand in METHODS.items():
        expected = by_hand(maps, slope, np.asarray(BLOBS))
        assert (expected > 0).any()
        scores = explain(None, make(model, regions=BLOBS, target=1))
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_grad_cam_of_a_cnn_is_its_class_activation_map():
    """Where a linear layer reads the mean of the maps, the gradient is that layer's weight over the positions."""
    model = cnn_model()
    regions = jm.grid_regions(64, 64, rows=4, cols=4)
    features = jax.jit(model.features)(LARGE[None])
    assert features.maps.shape == (1, 2, 2, 1280)
    np.testing.assert_allclose(model.classify(features), jax.jit(model.logits)(LARGE[None]), rtol=1e-4, atol=1e-5)
    weights = np.asarray(model.params["classifier"]["kernel"][...])[:, 3]
    expected = enlarged(np.asarray(features.maps[0]) @ weights / 4, np.asarray(regions))
    problem = make(model, regions=regions, target=3, image=LARGE)
    np.testing.assert_allclose(attribution.grad_cam(None, problem), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_grad_cam_of_a_resnet_as_a_module():
    net = ResNet(ResidualNetConfig(depth=18, num_classes=4), rngs=nnx.Rngs(0))
    net.eval()
    regions = jm.grid_regions(64, 64, rows=4, cols=4)
    maps = jax.jit(lambda net, x: net.features(x))(net, LARGE[None])[0]
    expected = enlarged(np.asarray(maps @ net.fc.kernel[...][:, 1]) / 4, np.asarray(regions))
    problem = make(net, regions=regions, target=1, image=LARGE)
    np.testing.assert_allclose(attribution.grad_cam(None, problem), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_features_are_the_last_attentions_input(config):
    model = vit_model(config)
    network = model.network()
    count = config.num_prefix
    x = jnp.concatenate([network.prefix[...] + network.position[...][:count], network.embed(IMAGE[None]).x[0]])[None]
    present = jnp.ones(x.shape[:2], bool)
    for i in range(config.num_layers - 1):
        x = network.layer(i)(x, present)
    normed = network.layer(config.num_layers - 1).norm1(x)
    features = jax.jit(model.features)(IMAGE[None])
    np.testing.assert_allclose(features.maps[0].reshape(9, -1), normed[0, count:], rtol=1e-4, atol=1e-5)
    logits = jax.jit(model.logits)(IMAGE[None])
    np.testing.assert_allclose(jax.jit(model.classify)(features), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_attention_maps_are_those_of_the_layers(config):
    """Computed head by head in NumPy from what enters each layer; with them the layer's own output comes out."""
    model = vit_model(config)
    maps = model.attention_maps(IMAGE)
    tokens = config.num_prefix + 9
    assert maps.shape == (config.num_layers, 3, tokens, tokens)
    assert maps.dtype == jnp.float32
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    network = model.network()
    prefix = network.prefix[...] + network.position[...][: config.num_prefix]
    x = jnp.concatenate([prefix, network.embed(IMAGE[None]).x[0]])[None]
    present = jnp.ones((1, tokens), bool)
    for i in range(config.num_layers):
        block = network.layer(i)
        qkv = block.project(x)
        query, key, value = np.split(np.asarray(qkv[0], np.float64), 3, axis=-1)
        heads = []
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            weights = np.exp(query[:, part] @ key[:, part].T / 2)
            weights /= weights.sum(1, keepdims=True)
            np.testing.assert_allclose(maps[i, h], weights, rtol=1e-3, atol=1e-5)
            heads.append(np.asarray(maps[i, h]) @ value[:, part])
        np.testing.assert_allclose(np.concatenate(heads, 1), block.attend(qkv, present)[0], rtol=1e-3, atol=1e-4)
        x = block(x, present)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
@pytest.mark.parametrize("variant", ["vit", "distilled", "teacher"])
def test_rollout_by_hand(variant, heads):
    config = VARIANTS[variant]
    model = vit_model(config)
    flow = np.eye(config.num_prefix + 9)
    for weights in np.asarray(model.attention_maps(IMAGE), np.float64):
        mixed = getattr(weights, heads)(0) + np.eye(len(flow))
        flow = mixed / mixed.sum(1, keepdims=True) @ flow
    np.testing.assert_allclose(flow.sum(1), 1)
    read = (flow[0] + flow[1]) / 2 if variant == "teacher" else flow[0]
    patches = read[config.num_prefix :]
    scores = attribution.attention_rollout(None, make(model), heads=heads)
    np.testing.assert_allclose(scores, patches, rtol=1e-4)
    pooled = attribution.attention_rollout(None, make(model, regions=BLOBS), heads=heads)
    np.testing.assert_allclose(pooled, mean_over(np.kron(patches.reshape(3, 3), np.ones((4, 4))), BLOBS), rtol=1e-4)


@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_discarded_weights_by_hand(ratio):
    """As popular code does it: the lowest share of a layer's joint weights is 0, but for the very first weight."""
    model = vit_model()
    flow = np.eye(10)
    for weights in np.asarray(model.attention_maps(IMAGE)):
        joint = weights.max(0).ravel().astype(np.float64)
        lowest = [i for i in np.argsort(joint, kind="stable")[: int(joint.size * ratio)] if i != 0]
        joint[lowest] = 0
        mixed = joint.reshape(10, 10) + np.eye(10)
        flow = mixed / mixed.sum(1, keepdims=True) @ flow
    scores = attribution.attention_rollout(None, make(model), heads="max", discard_ratio=ratio)
    np.testing.assert_allclose(scores, flow[0, 1:], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"discard_ratio must lie in \[0, 1\); got 1.0"):
        attribution.attention_rollout(None, make(model), discard_ratio=1.0)


def test_where_they_do_not_apply(unchecked):
    bare, own, cnn = make(LINEAR), make(tiny_net()), make(cnn_model(), regions=jnp.zeros((64, 64), int), image=LARGE)
    for explain, name in ((attribution.grad_cam, "Grad-CAM"), (attribution.grad_cam_plus_plus, "Grad-CAM\\+\\+")):
        with pytest.raises(ValueError, match=f"^{name} needs a network's feature maps.*the Classifier itself, not its"):
            explain(None, bare)
        with pytest.raises(ValueError, match="^Grad-CAM"):
            explain(
                None, make(jax.tree_util.Partial(type(cnn.model).logits, cnn.model), image=LARGE, regions=cnn.regions)
            )
    for problem in (bare, own, cnn):
        with pytest.raises(ValueError, match="attention rollout needs a vision transformer's attention"):
            attribution.attention_rollout(None, problem)
    with pytest.raises(ValueError, match="expected heads of mean, max, min; got 'median'"):
        attribution.attention_rollout(None, make(vit_model()), heads="median")
    with pytest.raises(ValueError, match=r"tiny has no attention \(it is not a vision transformer\)"):
        cnn.model.attention_maps(LARGE)
    with pytest.raises(ValueError, match=r"tiny takes images \[12, 12, 3\]; got \[64, 64, 3\]"):
        vit_model().attention_maps(LARGE)
    with pytest.raises(ValueError, match=r"expected images \[B, 12, 12, 3\]; got \[1, 64, 64, 3\]"):
        vit_model().features(LARGE[None])
