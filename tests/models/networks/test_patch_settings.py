"""What the `config.json` of a DINOv2 or BEiT says: honoured, or refused by name. No network runs here."""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.models.networks import beit, dinov2
from jaxmoxi.models.networks.patch_settings import known_heads, published_cfg
from support.checkpoints import write_folder
from support.networks import made_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "networks"
READERS = {"dinov2": dinov2, "beit": beit, "data2vec": beit}


def of(name):
    """(family's file, settings, tensors by shape alone) of a golden file."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = {n: np.broadcast_to(np.float32(0), s) for n, s in golden["shapes"].items()}
    return READERS[name.split("-")[1]], golden["settings"], tensors


DINO, REGISTERS, BEIT = "transformers-dinov2", "transformers-dinov2-registers", "transformers-beit-oblong"
TIMM_DINO, TIMM_BEIT = "timm-dinov2-registers", "timm-beit"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (DINO, {"num_hidden_layers": 10**7}, r"tensors of 10000000 layers \(num_hidden_layers\); the weights have 3"),
        (DINO, {"hidden_act": "sin"}, "expected an activation of gelu"),
        (DINO, {"mlp_ratio": "4"}, "mlp_ratio must be a number"),
        (DINO, {"num_register_tokens": 4}, "expected num_register_tokens 0"),
        (DINO, {"image_size": [16, 32]}, "expected a square image_size"),
        (DINO, {"use_swiglu_ffn": "no"}, "use_swiglu_ffn must be true or false"),
        (DINO, {"head_dim": 3}, "expected head_dim null"),
        (DINO, {"model_type": "dinov2_with_registers"}, "expected the tensors of a dinov2_with_registers"),
        (REGISTERS, {"num_register_tokens": -1}, "num_register_tokens must be a whole number"),
        (
            BEIT,
            {"use_relative_position_bias": False},
            "use_relative_position_bias forbids tensors that the weights have",
        ),
        (BEIT, {"use_absolute_position_embeddings": True}, "asks for tensors that the weights lack: correct it"),
        (BEIT, {"layer_scale_init_value": 0}, "layer_scale_init_value forbids tensors"),
        (BEIT, {"qkv_bias": False}, "expected qkv_bias true"),
        (BEIT, {"model_type": "data2vec-vision"}, "in the names of data2vec_vision; got those of beit"),
        (TIMM_DINO, {"global_pool": "map"}, "expected global_pool token or avg; got 'map'"),
        (TIMM_DINO, {"act_layer": "elu"}, "expected act_layer gelu"),
        (TIMM_DINO, {"reg_tokens": 1}, "reg_tokens is 1 in the config and 4 in the weights"),
        (TIMM_DINO, {"fc_norm": False}, "fc_norm is False in the config and True in the weights"),
        (TIMM_DINO, {"qk_norm": True}, "expected qk_norm false"),
        (TIMM_DINO, {"rope": 1}, "model_args rope may change the network and are not known"),
        (TIMM_DINO, {"mlp_ratio": 2}, "mlp_ratio is 2 in the config"),
        (TIMM_BEIT, {"swiglu_mlp": True}, "expected swiglu_mlp false"),
        (TIMM_BEIT, {"use_rel_pos_bias": False}, "use_rel_pos_bias is False in the config and True in the weights"),
        (TIMM_BEIT, {"init_values": None, "use_fc_norm": False}, "use_fc_norm is False in the config"),
        (TIMM_BEIT, {"global_pool": ""}, "expected global_pool avg or token"),
        (TIMM_BEIT, {"img_size": 48}, "img_size is 48 in the config and 32 in the weights"),
    ],
)
def test_what_is_not_the_network_is_refused(name, changes, message):
    reader, settings, tensors = of(name)
    reader.config_from_settings(settings, tensors)
    changed = settings | changes
    if "model_args" in settings:
        changed = settings | {"model_args": settings["model_args"] | changes}
    with pytest.raises(jm.InputError, match=message):
        reader.config_from_settings(changed, tensors)


@pytest.mark.parametrize("name", [DINO, BEIT, TIMM_DINO, TIMM_BEIT])
def test_weights_without_a_classifier_are_refused_in_one_line(tmp_path, name):
    _, settings, tensors = of(name)
    bare = {n: t for n, t in tensors.items() if not n.startswith(("classifier", "head"))}
    rootless = {n.removeprefix("dinov2.").removeprefix("beit."): t for n, t in bare.items()}
    for i, found in enumerate((bare, rootless)):
        write_folder(tmp_path / str(i), settings, found, None)
        with pytest.raises(jm.InputError, match="these weights have no classifier") as error:
            jm.models.load(tmp_path / str(i))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [DINO, BEIT])
def test_settings_that_nobody_knows_are_told(name):
    reader, settings, tensors = of(name)
    with pytest.warns(UserWarning, match="settings that are not known and are ignored: windows"):
        reader.config_from_settings(settings | {"windows": 4}, tensors)


@pytest.mark.parametrize("name", [DINO, BEIT, TIMM_DINO, TIMM_BEIT])
def test_missing_extra_and_misshapen_tensors_are_listed(name):
    reader, settings, _ = of(name)
    tensors = made_tensors(json.loads((GOLDEN / f"{name}.json").read_text())["shapes"])
    config = reader.config_from_settings(settings, tensors)
    ignored = {"embeddings.mask_token": np.zeros(3), "a.relative_position_index": np.zeros((2, 2), np.int64)}
    reader.from_tensors(config, tensors | ignored, source="here")
    lost = next(n for n in tensors if n.endswith("proj.weight") or n.endswith("output.dense.weight"))
    wrong = {n: t for n, t in tensors.items() if n != lost} | {"stray": np.zeros(2, np.float32)}
    with pytest.raises(jm.InputError, match="here does not hold the .* 1 missing: .*1 extra: stray"):
        reader.from_tensors(config, wrong, source="here")


def test_the_preprocessing_of_a_published_dinov2_decides_on_the_size(tmp_path):
    """facebook/dinov2-*-imagenet1k-1-layer: position embeddings for 518 pixels, photos cropped to 224."""
    golden = json.loads((GOLDEN / f"{DINO}.json").read_text())
    processor = {
        "image_processor_type": "BitImageProcessor", "crop_size": {"height": 24, "width": 24}, "do_center_crop": True,
        "size": {"shortest_edge": 28}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    write_folder(tmp_path, golden["settings"], made_tensors(golden["shapes"]), processor)
    model = jm.models.load(tmp_path)
    assert model.preprocessing.size == (24, 24)
    assert model.token_grid == (3, 3)
    assert jm.models.load(tmp_path, image_size=(16, 40)).token_grid == (2, 5)
    with pytest.raises(jm.InputError, match="image_size 20 is not a multiple of patch_size 8"):
        jm.models.load(tmp_path, image_size=20)


def test_published_preprocessing():
    assert dinov2.published_preprocessing({"model_type": "dinov2"}, {}, 224).resize == 256
    assert beit.published_preprocessing({"model_type": "beit"}, {}, 224).resize == (224, 224)
    assert beit.published_preprocessing({"model_type": "data2vec-vision"}, {}, 224) is None
    assert beit.published_preprocessing({"architecture": "beitv2_large_patch16_224"}, {}, 224).mean[0] == 0.485
    assert published_cfg("vit_tiny_patch14_dinov2") is published_cfg("beit_base_patch8_224") is None
    assert known_heads("vit_giant_patch14_reg4_dinov2.lvd142m") == 24


def test_timms_names():
    timm = pytest.importorskip("timm", exc_type=ImportError)
    names = [n for n in timm.list_models() if n.startswith(("beit_", "beitv2_")) or "dinov2" in n]
    assert len(names) > 14
    for name in names:
        for full in timm.models.get_arch_pretrained_cfgs(name):
            theirs = timm.models.get_pretrained_cfg(full)
            numbers = {key: tuple(getattr(theirs, key)) for key in ("mean", "std")}
            numbers |= {key: getattr(theirs, key) for key in ("crop_pct", "interpolation")}
            assert published_cfg(full) == numbers, full
