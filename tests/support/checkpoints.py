"""Small checkpoint folders of every family, for tests that load them, damaged or not."""

import json

import numpy as np
from safetensors.numpy import save_file

from jaxmoxi.models.networks import cnn, vit
from support.games import golden_tensor

CONFIG = vit.VisionTransformerConfig(
    image_size=16, patch_size=8, hidden_size=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=3
)
HUGGINGFACE = {
    "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 20, "image_size": 16, "patch_size": 8, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "qkv_bias": True, "num_channels": 3, "problem_type": None,
    "id2label": {"0": "ant", "1": "bee", "2": "cow"},
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 16, "width": 16}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.5, 0.5], "do_center_crop": False, "crop_size": 16,
}  # fmt: skip
TIMM = {
    "architecture": "vit_tiny_patch16_224", "num_classes": 3, "num_features": 12, "global_pool": "token",
    "model_args": {"num_heads": 3, "img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "drop_rate": 0.0},
    "pretrained_cfg": {
        "input_size": [3, 16, 16], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 3, "tag": "in1k",
    },
    "label_names": ["ant", "bee", "cow"],
}  # fmt: skip
MOBILENET = {
    "model_type": "mobilenet_v2", "image_size": 32, "depth_multiplier": 0.35, "num_channels": 3, "tf_padding": True,
    "hidden_act": "relu6", "layer_norm_eps": 0.001, "output_stride": 32, "expand_ratio": 6.0, "num_labels": 3,
}  # fmt: skip


def vit_tensors(naming="vit", config=CONFIG):
    return {n: golden_tensor("t", n, s, 1.3) for n, s in vit.expected_tensors(config, naming).items()}


def mobilenet_tensors(naming="huggingface", **changes):
    config = cnn.InvertedResidualConfig("mobilenet_v2", **{"num_classes": 3, "width": 0.35, **changes})
    tensors = {n: golden_tensor("m", n, s, 0.1) for n, s in cnn.expected_tensors(config, naming).items()}
    return tensors | {n: np.abs(t) for n, t in tensors.items() if n.endswith("running_var")}


def write_folder(folder, settings=HUGGINGFACE, tensors=None, processor=PROCESSOR):
    """A folder of these files; None leaves one out. A text is written as it is."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, content in (("config.json", settings), ("preprocessor_config.json", processor)):
        if content is not None:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    if tensors is not None:
        save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, folder / "model.safetensors")
    return folder
