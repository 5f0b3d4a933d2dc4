import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import vit
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.models.preprocess import Preprocessing
from support.games import golden_tensor, vit_classifier

CONFIG = VisionTransformerConfig(
    image_size=16, patch_size=8, hidden_size=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=4
)
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


def tensors_for(config, naming):
    return {n: golden_tensor("t", n, s, 1.3) for n, s in vit.expected_tensors(config, naming).items()}


def classifier(config, tensors):
    return Classifier(
        params=vit.from_tensors(config, tensors, source="test"),
        config=config,
        preprocessing=Preprocessing.from_huggingface({}, config.image_size),
        class_names=tuple("abcd"),
    )


def reference(config, tensors, images, root):
    """The network in plain NumPy, from Hugging Face's names, in float64."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def linear(x, name):
        bias = t.get(f"{name}.bias", 0.0)
        return x @ t[f"{name}.weight"].T + bias

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps) * t[f"{name}.weight"]
            + t[f"{name}.bias"]
        )

    emb, p, g = f"{root}.embeddings", config.patch_size, config.grid
    patches = [
        images[:, i * p : i * p + p, j * p : j * p + p].transpose(0, 3, 1, 2).reshape(len(images), -1)
        for i in range(g[0])
        for j in range(g[1])
    ]
    weight = t[f"{emb}.patch_embeddings.projection.weight"]
    x = np.stack(patches, 1) @ weight.reshape(len(weight), -1).T + t[f"{emb}.patch_embeddings.projection.bias"]
    prefix = [t[f"{emb}.cls_token"]] + ([t[f"{emb}.distillation_token"]] if config.distilled else [])
    x = np.concatenate([np.repeat(q, len(images), 0) for q in prefix] + [x], 1) + t[f"{emb}.position_embeddings"]
    width = config.hidden_size // config.num_heads
    for i in range(config.num_layers):
        layer = f"{root}.encoder.layer.{i}"
        h = norm(x, f"{layer}.layernorm_before")
        q, k, v = (linear(h, f"{layer}.attention.attention.{n}") for n in ("query", "key", "value"))
        out = np.zeros_like(q)
        for s in range(0, config.hidden_size, width):
            part = slice(s, s + width)
            scores = q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(width)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[..., part] = weights / weights.sum(-1, keepdims=True) @ v[..., part]
        x = x + linear(out, f"{layer}.attention.output.dense")
        h = linear(norm(x, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense")
        h = h * 0.5 * (1 + erf(h / np.sqrt(2))) if config.activation == "gelu" else np.maximum(h, 0)
        x = x + linear(h, f"{layer}.output.dense")
    x = norm(x, f"{root}.layernorm")
    if config.teacher:
        return (linear(x[:, 0], "cls_classifier") + linear(x[:, 1], "distillation_classifier")) / 2
    return linear(x[:, 0], "classifier")


@pytest.mark.parametrize(
    ("naming", "changes"),
    [
        ("vit", {}),
        ("vit", dict(qkv_bias=False, activation="relu", norm_eps=1e-3)),
        ("deit", dict(distilled=True)),
        ("deit", dict(distilled=True, teacher=True)),
    ],
)
def test_is_the_network(naming, changes):
    config = dataclasses.replace(CONFIG, **changes)
    tensors = tensors_for(config, naming)
    logits = classifier(config, tensors).logits(jnp.asarray(IMAGES))
    np.testing.assert_allclose(logits, reference(config, tensors, IMAGES, naming), rtol=1e-4, atol=1e-4)


def test_timms_names_are_the_same_network():
    config = dataclasses.replace(CONFIG, distilled=True, teacher=True)
    theirs = tensors_for(config, "deit")
    rename = {
        "deit.embeddings.cls_token": "cls_token",
        "deit.embeddings.distillation_token": "dist_token",
        "deit.embeddings.position_embeddings": "pos_embed",
        "deit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "deit.encoder.layer": "blocks",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "deit.layernorm": "norm",
        "distillation_classifier": "head_dist",
        "cls_classifier": "head",
    }
    timm = {}
    for name, tensor in theirs.items():
        if ".attention.attention." in name:
            continue
        for old, new in rename.items():
            name = name.replace(old, new)
        timm[name] = tensor
    for i in range(config.num_layers):
        for leaf in ("weight", "bias"):
            parts = [
                theirs[f"deit.encoder.layer.{i}.attention.attention.{n}.{leaf}"] for n in ("query", "key", "value")
            ]
            timm[f"blocks.{i}.attn.qkv.{leaf}"] = np.concatenate(parts)
    expected = classifier(config, theirs).logits(jnp.asarray(IMAGES))
    np.testing.assert_array_equal(classifier(config, timm).logits(jnp.asarray(IMAGES)), expected)


def test_eager_jit_vmap_and_batch():
    model = classifier(CONFIG, tensors_for(CONFIG, "vit"))
    images = jnp.asarray(IMAGES)
    eager = model.logits(images)
    np.testing.assert_allclose(jax.jit(lambda m, x: m.logits(x))(model, images), eager, rtol=1e-4, atol=1e-5)
    alone = jax.vmap(lambda x: model.logits(x[None])[0])(images)
    np.testing.assert_allclose(alone, eager, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.logits(images[::-1])[::-1], eager, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_that_does_not_fit():
    tensors = tensors_for(CONFIG, "vit")
    del tensors["classifier.bias"]
    tensors["vit.pooler.dense.weight"] = np.zeros((12, 12), np.float32)  # which the logits do not read
    tensors["vit.pooler.norm.weight"] = np.zeros((12, 12), np.float32)
    tensors["vit.layernorm.weight"] = np.zeros(13, np.float32)
    with pytest.raises(
        ValueError,
        match=r"1 missing: classifier.bias \[4\]; 1 extra: vit.pooler.norm.weight \[12, 12\]; "
        r"1 misshapen: vit.layernorm.weight \(expected \[12\], found \[13\]\)",
    ):
        vit.from_tensors(CONFIG, tensors, source="folder")
    with pytest.raises(ValueError, match="expected a vision transformer's tensors in the names of .* got conv1.weight"):
        vit.from_tensors(CONFIG, {"conv1.weight": np.zeros(1)}, source="folder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=20), "image_size 20 is not a multiple of patch_size 8"),
        (dict(num_heads=5), "hidden_size 12 is not a multiple of num_heads 5"),
        (dict(activation="prelu"), "expected an activation of gelu, .* got 'prelu'"),
        (dict(num_layers=0), "num_layers must be a whole number of at least 1; got 0"),
        (dict(teacher=True), "teacher=True needs the distillation token"),
    ],
)
def test_configs_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_find_class():
    names = ("tench, Tinca tinca", "crane", "Egyptian cat", "crane, bird")
    model = dataclasses.replace(vit_classifier(CONFIG), class_names=names, name="tiny")
    assert model.find_class("egyptian CAT") == 2
    assert model.find_class("tinca tinca") == 0
    assert model.find_class(3) == 3
    assert model.find_class("1") == 1
    assert model.find_class("crane") == 1  # the whole name comes before a synonym
    with pytest.raises(ValueError, match="tiny has no class 'egyptian cats' among its 4; did you mean 'egyptian cat'"):
        model.find_class("egyptian cats")
    with pytest.raises(ValueError, match="expected a class index from 0 to 3; got 4"):
        model.find_class("4")
    twice = dataclasses.replace(model, class_names=("crane, bird", "crane, machine", "x", "y"))
    with pytest.raises(ValueError, match=r"'crane' is ambiguous: 0 \(crane, bird\), 1 \(crane, machine\)"):
        twice.find_class("crane")


@pytest.mark.slow
def test_bfloat16():
    model = classifier(CONFIG, tensors_for(CONFIG, "vit"))
    half = model.astype("bfloat16")
    images = jnp.asarray(IMAGES)
    exact, rounded = model.logits(images), half.logits(images)
    assert rounded.dtype == jnp.float32
    assert 0 < float(jnp.abs(rounded - exact).max()) < 0.05 * float(jnp.abs(exact).max())
    np.testing.assert_array_equal(half.params["head"]["kernel"][...], model.params["head"]["kernel"][...])
    assert half.params["blocks"]["fc1"]["kernel"].dtype == jnp.bfloat16
    tokens = half.embed_tokens(images[0])
    assert {t.dtype for t in tokens} == {jnp.dtype("bfloat16")}
    with pytest.raises(ValueError, match="expected bfloat16 or float32; got float16"):
        model.astype("float16")
    again = model.astype("float32")
    np.testing.assert_array_equal(again.logits(images), exact)
