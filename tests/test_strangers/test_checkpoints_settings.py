"""Settings of every kind in a `config.json`: honoured, refused by name, or told. No other library is needed here."""

import json
import warnings

import pytest

import jaxmoxi as jm
from support.checkpoints import HUGGINGFACE, MOBILENET, TIMM, mobilenet_tensors, vit_tensors, write_folder


def load(folder, settings, tensors=None):
    """The model of these settings, without any warning."""
    if tensors is None:
        timm, mobile = "architecture" in settings, settings.get("model_type") == "mobilenet_v2"
        tensors = mobilenet_tensors() if mobile else vit_tensors("timm" if timm else "vit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return jm.models.load(write_folder(folder, settings, tensors, None), preprocessing="half")


def with_args(**args):
    return TIMM | {"model_args": TIMM["model_args"] | args}


# What transformers 5 writes into every file, and older releases wrote.
EVERY_FILE = {
    "transformers_version": "4.30.0", "torch_dtype": "float32", "dtype": "float32", "_name_or_path": "x/y",
    "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "encoder_stride": 16,
    "pooler_act": "tanh", "pooler_output_size": 12, "label2id": {"ant": 0}, "output_attentions": False,
    "return_dict": True, "use_cache": True, "tie_word_embeddings": True, "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False, "pruned_heads": {}, "add_cross_attention": False,
}  # fmt: skip


def test_what_is_harmless_is_silent(tmp_path):
    load(tmp_path / "vit", HUGGINGFACE | EVERY_FILE)
    load(tmp_path / "mobilenet", MOBILENET | {"classifier_dropout_prob": 0.2, "semantic_loss_ignore_index": 255})
    harmless = dict(drop_rate=0.5, drop_path_rate=0.1, weight_init="skip", dynamic_img_size=True, class_token=True)
    load(tmp_path / "timm", with_args(**harmless, norm_layer="layernorm", fc_norm=False, init_values=None))
    older = {k: v for k, v in TIMM.items() if k not in ("pretrained_cfg", "model_args")} | TIMM["pretrained_cfg"]
    assert load(tmp_path / "older", older | {"num_heads": 3}).preprocessing.size == (16, 16)


def test_files_as_the_hub_has_them_are_silent(tmp_path):
    """timm's, of vit_tiny_patch16_224.augreg_in21k_ft_in1k but for its sizes."""
    cfg = {
        "tag": "augreg_in21k_ft_in1k", "custom_load": True, "input_size": [3, 16, 16], "fixed_input_size": True,
        "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5], "num_classes": 3, "pool_size": None, "first_conv": "patch_embed.proj",
        "classifier": "head", "license": "apache-2.0",
    }  # fmt: skip
    settings = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "num_features": 12, "global_pool": "token"}
    write_folder(tmp_path, settings | {"pretrained_cfg": cfg}, vit_tensors("timm"), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = jm.models.load(tmp_path)
    assert (model.preprocessing.resize, model.preprocessing.crop, model.config.num_heads) == (17, (16, 16), 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_act": "quick_gelu"}, {"activation": "quick_gelu"}),
        ({"layer_norm_eps": 1e-3}, {"norm_eps": 1e-3}),
        ({"num_attention_heads": 6}, {"num_heads": 6}),
        ({"image_size": [16, 16], "patch_size": [8, 8]}, {"image_size": 16, "patch_size": 8}),
        ({"model_type": "vit_msn"}, {"norm_eps": 1e-12, "distilled": False}),
    ],
)
def test_hugging_faces_settings_are_honoured(tmp_path, changes, expected):
    config = load(tmp_path, HUGGINGFACE | changes).config
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_defaults_are_each_models_own(tmp_path):
    bare = {k: v for k, v in HUGGINGFACE.items() if k not in ("layer_norm_eps", "hidden_act", "qkv_bias")}
    assert load(tmp_path / "vit", bare).config.norm_eps == 1e-12
    assert load(tmp_path / "msn", bare | {"model_type": "vit_msn"}).config.norm_eps == 1e-6


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"num_heads": 2}, {"num_heads": 2}),
        ({"act_layer": "quick_gelu"}, {"activation": "quick_gelu"}),
        ({"act_layer": "gelu_tanh"}, {"activation": "gelu_pytorch_tanh"}),
        ({"act_layer": "relu", "num_heads": 12}, {"activation": "relu", "num_heads": 12}),
        ({"mlp_ratio": 20 / 12, "qkv_bias": True}, {"mlp_dim": 20}),
    ],
)
def test_timms_arguments_are_honoured(tmp_path, args, expected):
    for place, settings in (("within", with_args(**args)), ("beside", TIMM | args)):
        if place == "beside" and "num_heads" in args:  # what model_args says comes first
            settings = settings | {"model_args": {k: v for k, v in TIMM["model_args"].items() if k != "num_heads"}}
        config = load(tmp_path / place, settings).config
        assert {name: getattr(config, name) for name in expected} == expected


def test_heads_follow_from_the_name_alone(tmp_path):
    for name, heads in (("vit_tiny_patch16_224", 3), ("vit_small_patch16_224.dino", 6), ("deit_base_patch16_224", 12)):
        settings = {k: v for k, v in TIMM.items() if k != "model_args"} | {"architecture": name}
        assert load(tmp_path / name, settings).config.num_heads == heads
    unknown = {k: v for k, v in TIMM.items() if k != "model_args"} | {"architecture": "vit_pico_patch8_16"}
    with pytest.raises(jm.InputError, match=r'got .vit_pico_patch8_16.* add "model_args": {"num_heads": N}'):
        load(tmp_path / "unknown", unknown)
    with pytest.raises(jm.InputError, match="hidden_size 12 is not a multiple of num_heads 16"):
        load(tmp_path / "large", unknown | {"architecture": "vit_large_patch16_224"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "prelu"}, "expected an activation of gelu"),
        ({"pruned_heads": {"0": [1]}}, "expected pruned_heads null"),
        ({"quantization_config": {"load_in_8bit": True}}, "expected quantization_config null"),
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "expected auto_map null"),
        ({"use_mean_pooling": True}, "expected use_mean_pooling false"),
        ({"use_relative_position_bias": True}, "expected use_relative_position_bias false"),
        ({"num_register_tokens": 4}, "expected num_register_tokens 0"),
        ({"layerscale_value": 1.0}, "expected layerscale_value null"),
        ({"qkv_bias": False}, "6 extra: vit.encoder.layer.0.attention.attention"),
        ({"num_hidden_layers": 3}, "the tensors of 3 layers .*; the weights have 2"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be a whole number from 1 to"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers must be a whole number .*; got 2.0"),
        ({"num_attention_heads": None}, "num_attention_heads must be a whole number .*; got None"),
        ({"hidden_size": "12"}, "hidden_size must be a whole number .*; got '12'"),
        ({"intermediate_size": [20]}, "intermediate_size must be a whole number"),
        ({"patch_size": [16, 32]}, "expected square patches; got patch_size"),
        ({"image_size": -16}, "image_size must be a whole number"),
        ({"patch_size": True}, "patch_size must be a whole number"),
        ({"layer_norm_eps": "1e-6"}, "layer_norm_eps must be a number"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps must be a number from 0 to 1"),
        ({"hidden_act": None}, "hidden_act must be a name"),
        ({"qkv_bias": 1}, "qkv_bias must be true or false"),
        ({"architectures": "ViT"}, "architectures must be a list of names"),
        ({"id2label": {"0": "a", "1": "b"}}, "id2label names 2 classes, the weights have 3"),
        ({"id2label": {"a": 1, "b": 2, "c": 3}}, "whole numbers as keys"),
        ({"id2label": {"0": None, "1": "b", "2": "c"}}, "a name for every class in id2label; got None"),
        ({"id2label": 3}, "names by class"),
        ({"model_type": ["vit"]}, "expected a model_type"),
    ],
)
def test_hugging_faces_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(jm.InputError, match=message):
        load(tmp_path, HUGGINGFACE | changes)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"global_pool": "avg"}, "expected global_pool token"),
        ({"global_pool": "map"}, "expected global_pool token"),
        ({"act_layer": "elu"}, "expected act_layer gelu, .*; got 'elu'"),
        ({"act_layer": 3}, "act_layer must be a name"),
        ({"qk_norm": True}, "expected qk_norm false"),
        ({"init_values": 1e-5}, "expected init_values null"),
        ({"class_token": False}, "expected class_token true"),
        ({"reg_tokens": 4}, "expected reg_tokens 0"),
        ({"pre_norm": True}, "expected pre_norm false"),
        ({"norm_layer": "rmsnorm"}, "expected norm_layer null; got .*rmsnorm"),
        ({"fc_norm": True}, "expected fc_norm null"),
        ({"in_chans": 1}, "in_chans is 1 in the config and 3 in the weights"),
        ({"no_embed_class": True, "qk_norm": True}, "expected no_embed_class false, qk_norm false|expected qk_norm"),
        ({"num_heads": 0}, "num_heads must be a whole number"),
        ({"patch_size": 4}, "patch_size is 4 in the config and 8 in the weights"),
        ({"img_size": 32}, "img_size is 32 in the config and 16 in the weights"),
        ({"depth": 12, "embed_dim": 192}, "embed_dim is 192 in the config and 12 .*; depth is 12 .* and 2 in"),
        ({"mlp_ratio": 4.0}, "mlp width is 4.0 in the config and 20"),
        ({"qkv_bias": False}, "qkv_bias is False in the config and True"),
        ({"num_classes": 1000}, "num_classes is 1000 in the config and 3"),
        ({"rope_type": "mixed"}, "model_args rope_type may change the network and are not known"),
    ],
)
def test_timms_arguments_are_refused(tmp_path, args, message):
    with pytest.raises(jm.InputError, match=message):
        load(tmp_path, with_args(**args))
    if "rope_type" not in args and "num_heads" not in args:
        settings = TIMM | {"model_args": {"num_heads": 3}} | args
        with pytest.raises(jm.InputError, match=message):
            load(tmp_path, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_stride": 16}, "expected output_stride 32"),
        ({"finegrained_output": False}, "expected finegrained_output true"),
        ({"hidden_act": "silu"}, "expected hidden_act relu6"),
        ({"expand_ratio": 4}, "expected expand_ratio 6"),
        ({"min_depth": 16, "output_stride": 8}, "expected .*min_depth 8.*output_stride 32"),
        ({"num_channels": 1}, "num_channels is 1 in the config and 3 in the weights"),
        ({"depth_multiplier": 1e9}, "depth_multiplier must be a number from 0.05 to 8"),
        ({"depth_multiplier": None}, "depth_multiplier must be a number"),
        ({"depth_multiplier": 0.5}, "misshapen"),
        ({"image_size": 10**9}, "image_size must be a whole number from 1 to 16384"),
        ({"image_size": None}, "image_size must be a whole number"),
        ({"layer_norm_eps": [1e-3]}, "layer_norm_eps must be a number"),
        ({"tf_padding": "yes"}, "tf_padding must be true or false"),
        ({"model_args": {"drop_rate": 0.1}, "round_nearest": 4}, "expected round_nearest 8"),
    ],
)
def test_mobilenets_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(jm.InputError, match=message):
        load(tmp_path, MOBILENET | changes)


def test_mobilenets_arguments_of_timm(tmp_path):
    tensors = mobilenet_tensors("timm")
    timm = {"architecture": "mobilenetv2_035", "num_classes": 3, "global_pool": "avg", "num_features": 1280}
    config = load(tmp_path / "a", timm | {"model_args": {"bn_eps": 0.1, "pad_type": "same"}}, tensors).config
    assert (config.norm_eps, config.padding) == (0.1, "tf_same")
    config = load(tmp_path / "b", timm, tensors).config
    assert (config.norm_eps, config.padding) == (1e-5, "symmetric")
    for args, message in (
        ({"act_layer": "snake"}, "expected act_layer to be"), ({"se_layer": "se"}, "expected se_layer null"),
        ({"global_pool": "max"}, "expected global_pool avg"), ({"output_stride": 16}, "expected output_stride 32"),
        ({"pad_type": "valid"}, 'expected pad_type "" or "same"'), ({"bn_tf": True}, "expected bn_tf false"),
        ({"num_features": 640}, "num_features is 640 in the config and 1280"), ({"odd": 1}, "model_args odd may"),
        ({"num_classes": 1000}, "num_classes is 1000 in the config and 3"), ({"bn_eps": "x"}, "bn_eps must be a num"),
    ):  # fmt: skip
        with pytest.raises(jm.InputError, match=message):
            load(tmp_path / "c", timm | {"model_args": args}, tensors)


@pytest.mark.parametrize("settings", [HUGGINGFACE, TIMM, MOBILENET])
def test_settings_nobody_has_heard_of_are_told(tmp_path, settings):
    tensors = mobilenet_tensors() if settings is MOBILENET else vit_tensors("timm" if settings is TIMM else "vit")
    write_folder(tmp_path, settings | {"gating": "hard", "windows": [1, 2]}, tensors)
    with pytest.warns(UserWarning, match="settings that are not known and are ignored: gating, windows; where one of"):
        jm.models.load(tmp_path, preprocessing="half")


@pytest.mark.parametrize("args", [None, {}, [], "num_heads=3", 3])
def test_arguments_that_are_no_object(tmp_path, args):
    settings = TIMM | {"model_args": args}
    if not args and args != []:
        assert load(tmp_path, settings).config.num_heads == 3
        return
    with pytest.raises(jm.InputError, match="model_args must be an object"):
        load(tmp_path, settings)
    (tmp_path / "config.json").write_text(json.dumps(TIMM | {"pretrained_cfg": args}))
    with pytest.raises(jm.InputError, match="pretrained_cfg must be an object"):
        jm.models.load(tmp_path)
