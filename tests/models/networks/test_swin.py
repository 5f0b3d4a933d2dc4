import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.models.networks import swin
from jaxmoxi.models.networks.swin_config import Stage, SwinConfig, tensor_table
from jaxmoxi.models.networks.swin_windows import (
    attend,
    gather_bias,
    join_windows,
    resize_table,
    shift_mask,
    split_windows,
)  # fmt: skip
from support.checkpoints import write_folder
from support.networks import made_images, made_tensor, made_tensors

CONFIG = SwinConfig(
    image_size=32, embed_dim=6, depths=(2, 1), num_heads=(2, 3), head_dims=(3, 4), windows=((4, 4),) * 2,
    mlp_dims=(12, 24), num_classes=3,
)  # fmt: skip
HUGGINGFACE = {
    "model_type": "swin", "embed_dim": 6, "depths": [2, 1], "num_heads": [2, 3], "window_size": 4, "mlp_ratio": 2.0,
    "image_size": 32, "patch_size": 4, "num_channels": 3, "qkv_bias": True, "hidden_act": "gelu",
    "layer_norm_eps": 1e-5, "use_absolute_embeddings": False, "path_norm": True, "drop_path_rate": 0.1,
    "out_features": ["stage2"], "out_indices": [2], "stage_names": ["stem", "stage1", "stage2"], "hidden_size": 12,
    "num_layers": 2, "num_labels": 3,
}  # fmt: skip
TIMM = {"architecture": "swin_tiny_patch4_window7_224", "model_args": {"img_size": 32, "window_size": 4}}
TORCHVISION = {"architecture": "swin_t", "image_size": 32}
SIGNS = {
    "huggingface": "swin.embeddings.patch_embeddings.projection.weight",
    "timm": "patch_embed.proj.weight",
    "torchvision": "features.0.0.weight",
}
IMAGES = jnp.asarray(made_images((32, 32)))


def tensors_of(naming, **changes):
    config = dataclasses.replace(CONFIG, rule=naming, **changes)
    return made_tensors({name: shape for name, shape, _ in tensor_table(config, {SIGNS[naming]: None})})


def load(folder, settings, tensors, **options):
    write_folder(folder, settings, tensors, None)
    preprocessing = jm.models.Preprocessing(resize=(32, 32))
    return jm.models.load(folder, **{"preprocessing": preprocessing, **options})


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_shifted_windows_are_windows_of_a_shifted_grid(shape):
    # The definition, without any cyclic shift: two positions see each other where the grid of windows, moved by the
    # shift, has them in one cell; the cells at the edge are smaller.
    window, shift = (4, 2), (2, 1)
    stage = Stage((shape[0] * 4, shape[1] * 2), window, shift)
    (rows, columns), heads, width = stage.map, 2, 3
    qkv = np.random.default_rng(0).normal(size=(2, rows, columns, 3 * heads * width)).astype(np.float32)
    table = made_tensor("table", (7 * 3, heads))
    cut = split_windows(jnp.asarray(qkv), stage, True, pad_first=True)
    ours = join_windows(
        attend(cut, jnp.asarray(gather_bias(table, window)), shift_mask(stage)), stage, True, pad_first=True
    )

    row, column = np.divmod(np.arange(rows * columns), columns)
    cell = (row - shift[0]) // window[0] * 100 + (column - shift[1]) // window[1]
    down, right = row[:, None] - row + 3, column[:, None] - column + 1
    together = cell[:, None] == cell
    bias = table[np.where(together, down * 3 + right, 0)]
    query, key, value = np.moveaxis(qkv.reshape(2, rows * columns, 3, heads, width), 2, 0)
    scores = np.einsum("bqhd,bkhd->bqkh", query, key) * width**-0.5 + bias
    weights = np.exp(scores) * together[None, :, :, None]
    weights /= weights.sum(2, keepdims=True)
    expected = np.einsum("bqkh,bkhd->bqhd", weights, value).reshape(2, rows, columns, -1)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_all_ways_to_the_logits_agree(tmp_path):
    model = load(tmp_path, HUGGINGFACE, tensors_of("huggingface"))
    assert model.token_grid is None
    features, logits, decided, mapped, alone = jax.jit(
        lambda model, images: (
            model.features(images),
            model.logits(images),
            model.classify(model.features(images)),
            jax.vmap(lambda image: model.logits(image[None])[0])(images),
            model.logits(images[:1])[0],
        )
    )(model, IMAGES)
    assert features.maps.shape == (2, 4, 4, 12)
    np.testing.assert_allclose(decided, logits, atol=1e-6)
    np.testing.assert_allclose(mapped, logits, atol=1e-5)
    np.testing.assert_allclose(alone, logits[0], atol=1e-5)  # whatever its batch
    half = jax.jit(type(model).logits)(model.astype("bfloat16"), IMAGES)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, logits, atol=0.1)
    with pytest.raises(ValueError, match="no attention"):
        model.attention_maps(IMAGES[0])
    with pytest.raises(ValueError, match=r"expected images \[B, 32, 32, 3\]"):
        model.features(IMAGES[:, :16])


def test_gradients_pass_through(tmp_path):
    model = load(tmp_path, TORCHVISION, tensors_of("torchvision"))
    both = jax.jit(jax.value_and_grad(lambda x: model.logits(x)[0, 0]))
    gradient = both(IMAGES)[1]
    step = 1e-3 * jnp.sign(gradient)
    np.testing.assert_allclose(both(IMAGES + step)[0] - both(IMAGES - step)[0], 2 * (step * gradient).sum(), rtol=0.05)


def old_timm(tensors):
    """The layout of the original's files and of timm before 0.9."""
    old = {name.replace("layers.1.downsample", "layers.0.downsample"): t for name, t in tensors.items()}
    old = {name.replace("head.fc.", "head."): t for name, t in old.items()}
    return old | {"layers.0.blocks.1.attn_mask": np.zeros((4, 16, 16), np.float32),
                  "layers.0.blocks.0.attn.relative_position_index": np.zeros((16, 16), np.int64)}  # fmt: skip


def test_old_and_new_layouts_of_timm_agree(tmp_path):
    new = tensors_of("timm")
    models = [load(tmp_path / n, TIMM, t) for n, t in (("new", new), ("old", old_timm(new)))]
    jax.tree.map(np.testing.assert_array_equal, *(model.params for model in models))


def test_what_is_for_training_alone_is_ignored(tmp_path):
    tensors = tensors_of("huggingface")
    mask = {"swin.embeddings.mask_token": np.ones((1, 1, 6), np.float32)}
    models = [load(tmp_path / n, HUGGINGFACE, t) for n, t in (("a", tensors), ("b", tensors | mask))]
    jax.tree.map(np.testing.assert_array_equal, *(model.params for model in models))


@pytest.mark.parametrize(
    ("settings", "naming", "message"),
    [
        (
            HUGGINGFACE | {"window_size": 5},
            "huggingface",
            "window_size is .*5, 5.* and .*4, 4.* in the weights",
        ),
        (HUGGINGFACE | {"depths": [2, 2]}, "huggingface", r"depths is \(2, 2\) in the config and \(2, 1\)"),
        (HUGGINGFACE | {"num_heads": [2, 2]}, "huggingface", "num_heads"),
        (HUGGINGFACE | {"num_heads": 2}, "huggingface", "num_heads must be a list"),
        (HUGGINGFACE | {"mlp_ratio": 4.0}, "huggingface", "mlp_ratio"),
        (HUGGINGFACE | {"qkv_bias": False}, "huggingface", "qkv_bias is False in the config and True"),
        (HUGGINGFACE | {"use_absolute_embeddings": True}, "huggingface", "use_absolute_embeddings"),
        (HUGGINGFACE | {"hidden_act": "xielu"}, "huggingface", "expected an activation of gelu, .*'xielu'"),
        (HUGGINGFACE | {"num_channels": 1}, "huggingface", "num_channels is 1"),
        (HUGGINGFACE | {"image_size": 24}, "huggingface", "takes no map smaller than its windows"),
        (TIMM, "huggingface", "named as in huggingface; correct"),
        (HUGGINGFACE, "timm", "named as in timm; correct"),
        ({"architecture": "swin_v2_t"}, "torchvision", "version 2 is not implemented"),
        ({"architecture": "swin_tiny_patch4_window7_224"}, "timm", r"tables of .* have \[49, 49\] rows"),
        (TIMM | {"global_pool": "max"}, "timm", "expected global_pool avg; got .*max"),
        (TIMM | {"model_args": {**TIMM["model_args"], "ape": True}}, "timm", "expected ape false"),
        (TIMM | {"model_args": {**TIMM["model_args"], "gate": 1}}, "timm", "gate may change the network"),
        (TIMM | {"model_args": {**TIMM["model_args"], "embed_dim": 12}}, "timm", "embed_dim is 12"),
        (TIMM | {"model_args": {"img_size": 32, "window_size": [4, 4, 4]}}, "timm", "one for each of 2 stages"),
    ],
)
def test_what_is_refused(tmp_path, settings, naming, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, settings, tensors_of(naming))


def test_missing_tensors_are_named(tmp_path):
    tensors = tensors_of("torchvision")
    del tensors["features.1.1.attn.proj.bias"]
    with pytest.raises(ValueError, match=r"1 missing: features.1.1.attn.proj.bias \[6\]"):
        load(tmp_path, TORCHVISION, tensors)
    with pytest.raises(ValueError, match="expected the tensors of a Swin transformer in the names of huggingface"):
        load(tmp_path, TORCHVISION, {"features.1.1.attn.proj.bias": tensors["norm.bias"]})
    with pytest.raises(ValueError, match="missing or misshapen"):
        load(tmp_path, TORCHVISION, {"features.0.0.weight": tensors["features.0.0.weight"]})


def test_unknown_settings_are_told(tmp_path):
    with pytest.warns(UserWarning, match="not known and are ignored: swish_gate"):
        load(tmp_path, HUGGINGFACE | {"swish_gate": 1}, tensors_of("huggingface"))


def test_other_sizes(tmp_path):
    with pytest.raises(ValueError, match="takes no map smaller than its windows; take larger images"):
        load(tmp_path, HUGGINGFACE, tensors_of("huggingface"), image_size=(24, 64), preprocessing="half")
    for naming, settings in (("huggingface", HUGGINGFACE), ("timm", TIMM), ("torchvision", TORCHVISION)):
        model = load(tmp_path, settings, tensors_of(naming), image_size=(40, 52), preprocessing="imagenet")
        assert model.config.image_size == (40, 52)
    cut = load(tmp_path, TIMM, tensors_of("timm"), image_size=(20, 64), preprocessing="imagenet")
    assert isinstance(cut.config, SwinConfig)
    assert [(stage.map, stage.window, stage.shift) for stage in cut.config.stages()] == [
        ((5, 16), (4, 4), (2, 2)),
        ((3, 8), (3, 4), (0, 2)),
    ]
    absolute = tensors_of("huggingface", absolute=True)
    with pytest.raises(ValueError, match="multiples of 4 pixels"):
        load(tmp_path, HUGGINGFACE | {"use_absolute_embeddings": True}, absolute, image_size=42, preprocessing="half")


def test_tables_at_their_own_size_stay():
    table = made_tensor("table", (5 * 7, 2))
    np.testing.assert_array_equal(resize_table(table, (3, 4), (3, 4)), table)
    smaller = resize_table(table, (3, 4), (3, 3)).reshape(5, 5, 2)
    np.testing.assert_allclose(smaller[2, 2], table.reshape(5, 7, 2)[2, 3], atol=1e-6)  # no difference stays none


@pytest.mark.parametrize(
    ("settings", "naming", "resize", "crop"),
    [
        (HUGGINGFACE, "huggingface", (32, 32), None),
        (TIMM | {"architecture": "swin_tiny_patch4_window7_224.ms_in1k"}, "timm", 35, (32, 32)),
        (TIMM | {"architecture": "swin_base_patch4_window12_384"}, "timm", 32, (32, 32)),
        (TORCHVISION, "torchvision", 33, (32, 32)),
    ],
)
def test_the_published_preprocessing_is_assumed_and_told(tmp_path, settings, naming, resize, crop):
    with pytest.warns(UserWarning, match="assuming the preprocessing of the published weights"):
        model = load(tmp_path, settings, tensors_of(naming), preprocessing=None)
    found = model.preprocessing
    assert (found.resize, found.crop, found.resample, found.mean) == (resize, crop, 3, (0.485, 0.456, 0.406))


def test_a_name_that_nobody_published(tmp_path):
    settings = TORCHVISION | {"architecture": "swin_mine"}
    with pytest.raises(ValueError, match="does not say how a photo becomes"):
        load(tmp_path, settings, tensors_of("torchvision"), preprocessing=None)


def test_a_module_with_random_weights_has_the_same_places(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(tmp_path, HUGGINGFACE, tensors_of("huggingface"))
    config = model.config
    assert isinstance(config, SwinConfig)
    fresh = nnx.state(nnx.eval_shape(lambda: swin.Swin(config, rngs=nnx.Rngs(0))))
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, model.params)
