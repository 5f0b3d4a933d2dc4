"""Folders as timm and transformers write them, with settings of every kind: the same logits, or a refusal.

Needs PyTorch with timm or transformers, and is skipped without.
"""

import json
import warnings

import jax
import numpy as np
import pytest

import jaxmoxi as jm

torch = pytest.importorskip("torch", exc_type=ImportError)
SIDE = 32
slow = pytest.mark.slow  # where others of their kind remain
IMAGES = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def theirs(model):
    with torch.inference_mode():
        out = model.eval()(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)).contiguous())
    return np.asarray(getattr(out, "logits", out))


def shaken(model):
    """The model with weights that are none of an initialisation: biases that matter, statistics that differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if name.endswith("running_var") else 0.2 * noise)
    return model.eval()


def same_logits(folder, model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = jm.models.load(folder, preprocessing="half", **options)
    logits = np.asarray(jax.jit(type(ours).logits)(ours, IMAGES))
    expected = theirs(model)
    np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=SIDE)
SIZES |= dict(patch_size=8, num_labels=5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("ViT", {}, marks=slow),
        ("ViT", dict(num_attention_heads=6, hidden_act="gelu_new", layer_norm_eps=1e-3, qkv_bias=False)),
        ("ViT", dict(hidden_act="quick_gelu", patch_size=[8, 8], image_size=[SIDE, SIDE], encoder_stride=4)),
        pytest.param(
            "ViT", dict(hidden_act="relu", pooler_act="relu", pooler_output_size=7, hidden_dropout_prob=0.3), marks=slow
        ),
        pytest.param("DeiT", dict(hidden_act="gelu_pytorch_tanh", num_attention_heads=2), marks=slow),
        ("DeiTWithTeacher", dict(num_attention_heads=4)),
        ("ViTMSN", dict(num_attention_heads=2)),
        pytest.param("MobileNetV2", dict(depth_multiplier=0.35), marks=slow),
        ("MobileNetV2", dict(depth_multiplier=0.5, tf_padding=False, layer_norm_eps=0.1)),
        pytest.param("MobileNetV2", dict(depth_multiplier=0.35, expand_ratio=6, output_stride=32), marks=slow),
    ],
)
def test_transformers(tmp_path, name, changes):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    kind, teacher = name.removesuffix("WithTeacher"), name.endswith("WithTeacher")
    config = getattr(transformers, f"{kind}Config")
    sizes = {"image_size": SIDE, "num_labels": 5} if kind == "MobileNetV2" else SIZES
    network = getattr(transformers, f"{kind}ForImageClassification{'WithTeacher' if teacher else ''}")
    model = shaken(network(config(**sizes | changes)))
    model.save_pretrained(tmp_path)
    same_logits(tmp_path, model)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ViT", dict(hidden_act="prelu"), "expected an activation"),
        ("MobileNetV2", dict(output_stride=16), "expected output_stride 32"),
        ("MobileNetV2", dict(hidden_act="silu"), "expected hidden_act relu6"),
        ("MobileNetV2", dict(depth_multiplier=0.5, finegrained_output=False), "expected finegrained_output true"),
        ("MobileNetV2", dict(expand_ratio=4.0), "expected expand_ratio 6"),
        ("MobileNetV2", dict(depth_divisible_by=4), "expected depth_divisible_by 8"),
    ],
)
def test_transformers_networks_that_are_refused(tmp_path, name, changes, message):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    sizes = {"image_size": SIDE, "num_labels": 5} if name == "MobileNetV2" else SIZES
    config = getattr(transformers, f"{name}Config")(**sizes | changes)
    getattr(transformers, f"{name}ForImageClassification")(config).save_pretrained(tmp_path)
    with pytest.raises(jm.InputError, match=message):
        jm.models.load(tmp_path, preprocessing="half")


def timm_folder(path, name, args, **beside):
    """The folder that timm writes for the hub, and the model."""
    timm = pytest.importorskip("timm", exc_type=ImportError)
    from safetensors.torch import save_file

    model = shaken(timm.create_model(name, **args))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path / "model.safetensors")
    settings = {"architecture": name, "num_classes": 5, "model_args": args, **beside}
    settings["pretrained_cfg"] = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "tag": ""}
    (path / "config.json").write_text(json.dumps(settings))
    return model


SMALL = dict(img_size=SIDE, num_classes=5, depth=2)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224", SMALL),  # three heads, by the name
        pytest.param("vit_small_patch16_224", SMALL | dict(patch_size=8), marks=slow),
        ("vit_base_patch32_224", SMALL | dict(embed_dim=96)),  # twelve heads of eight numbers
        ("vit_large_patch16_224", SMALL | dict(embed_dim=128)),  # sixteen
        pytest.param("vit_huge_patch14_224", SMALL | dict(embed_dim=160, patch_size=16), marks=slow),
        pytest.param("vit_gigantic_patch14_224", SMALL | dict(embed_dim=160, patch_size=16), marks=slow),
        ("vit_tiny_patch16_224", SMALL | dict(num_heads=6, act_layer="relu")),
        ("vit_tiny_patch16_224", SMALL | dict(act_layer="quick_gelu", qkv_bias=False, mlp_ratio=2.5)),
        ("vit_tiny_patch16_224", SMALL | dict(act_layer="gelu_tanh", drop_rate=0.1, drop_path_rate=0.1)),
        ("vit_tiny_patch16_224", SMALL | dict(patch_drop_rate=0.5, global_pool="token", class_token=True)),
        ("vit_tiny_patch16_224", SMALL | dict(global_pool="avg", act_layer="silu")),
        ("vit_tiny_patch16_224", SMALL | dict(init_values=0.1, reg_tokens=2, no_embed_class=True, fc_norm=True)),
        ("vit_base_patch16_224_miil", SMALL | dict(embed_dim=96)),  # without biases of queries, keys and values
        pytest.param("deit_tiny_patch16_224", SMALL, marks=slow),
        ("deit_tiny_distilled_patch16_224", SMALL | dict(num_heads=2)),
        pytest.param("mobilenetv2_035", dict(num_classes=5), marks=slow),
        ("mobilenetv2_035", dict(num_classes=5, bn_eps=0.1, pad_type="same")),
        pytest.param("mobilenetv2_050", dict(num_classes=5, drop_rate=0.2, act_layer="relu6"), marks=slow),
        pytest.param("tf_efficientnet_lite0", dict(num_classes=5), marks=slow),
        pytest.param("efficientnet_lite0", dict(num_classes=5, drop_path_rate=0.2), marks=slow),
    ],
)
def test_timm(tmp_path, name, args):
    model = timm_folder(tmp_path, name, args)
    same_logits(tmp_path, model)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(act_layer="elu"), "expected act_layer gelu, gelu_tanh, .*; got 'elu'"),
        (dict(qk_norm=True), "expected qk_norm false"),
        (dict(pre_norm=True), "expected pre_norm false"),
        (dict(final_norm=False), "expected final_norm true"),
        (dict(class_token=False, global_pool="avg"), "expected .*class_token true"),
        (dict(norm_layer="rmsnorm"), "expected norm_layer null"),
        (dict(pos_embed="none"), "expected pos_embed learn"),
        (dict(proj_bias=False), "expected proj_bias true"),
        (dict(scale_mlp_norm=True), "expected scale_mlp_norm false"),
        (dict(global_pool="map"), "expected global_pool token"),
    ],
)
def test_timm_networks_that_are_refused(tmp_path, args, message):
    timm_folder(tmp_path, "vit_tiny_patch16_224", SMALL | args)
    with pytest.raises(jm.InputError, match=message):
        jm.models.load(tmp_path, preprocessing="half")


def test_timm_in_the_wrapper_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    pytest.importorskip("timm", exc_type=ImportError)
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", model_args={"img_size": SIDE, "depth": 2, "num_heads": 6}, num_labels=5
    )
    model = shaken(transformers.TimmWrapperForImageClassification(config))
    model.save_pretrained(tmp_path)
    same_logits(tmp_path, model)


def test_timm_settings_beside_the_arguments(tmp_path):
    timm_folder(tmp_path, "vit_tiny_patch16_224", SMALL, global_pool="avg")
    with pytest.raises(jm.InputError, match="expected global_pool token"):
        jm.models.load(tmp_path)
    model = timm_folder(tmp_path, "vit_tiny_patch16_224", SMALL, global_pool="token", num_features=192)
    same_logits(tmp_path, model)
