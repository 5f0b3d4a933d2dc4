"""From a checkpoint folder to a `Classifier`: what is in it, in whose names, and for which network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.demo import DEMO_PREPROCESSING, demo_weights_path
from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.classifier import Classifier, imagenet_classes
from jaxmoxi.models.networks import cnn, vit
from jaxmoxi.models.preprocess import Preprocessing

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")


def load(folder: str | os.PathLike[str]) -> Classifier:
    """A classifier from a checkpoint folder.

    The folder holds `config.json`, the weights (`model.safetensors`, possibly in shards with an index, or
    `pytorch_model.bin` / `.pth`, read without PyTorch and without running what they pickle), and optionally
    `preprocessor_config.json`. Understood: Hugging Face's ViT, DeiT (with or without teacher) and MobileNetV2, timm's
    `vit_*`, `deit_*`, `efficientnet_lite0` and `mobilenetv2_*`, and MobileNetV2 in torchvision's names.

    Raises FileNotFoundError for a missing folder or file; ValueError for a config it does not understand and for
    tensors that are missing, extra or misshapen, all of them listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no model folder {folder}; expected a folder with config.json and one of {', '.join(_WEIGHTS)}"
        )
    settings = _read_json(folder / "config.json")
    tensors = read_tensors(folder)
    processor = folder / "preprocessor_config.json"
    config, state = _network(settings, tensors, folder)
    if processor.exists():
        preprocessing = Preprocessing.from_huggingface(_read_json(processor), config.image_size)
    elif "pretrained_cfg" in settings:
        preprocessing = Preprocessing.from_timm(settings["pretrained_cfg"])
    elif isinstance(config, cnn.InvertedResidualConfig):
        # torchvision's folders say nothing; this is how its weights were trained.
        side = config.image_size
        preprocessing = Preprocessing.from_timm({"input_size": (3, side, side), "interpolation": "bilinear"})
    else:
        preprocessing = Preprocessing.from_huggingface({}, config.image_size)
    if preprocessing.size != (config.image_size, config.image_size):
        raise InputError(
            f"{folder}: the preprocessing makes images of {preprocessing.size} pixels, the network takes "
            f"{config.image_size} x {config.image_size}; correct size and crop_size in {processor.name}"
        )
    return Classifier(
        params=state,
        config=config,
        preprocessing=preprocessing,
        class_names=_class_names(settings, config.num_classes, folder),
        name=folder.resolve().name,
    )


def demo() -> Classifier:
    """EfficientNet-Lite0 with its ImageNet weights (74 % top-1), as the `demo` extra installs them.

    Source: Tan and Le, "EfficientNet", ICML 2019; the Lite variant leaves out squeeze-and-excitation and swish.
    Raises ImportError that says how to install the extra.
    """
    path = demo_weights_path()
    config = cnn.InvertedResidualConfig(arch="efficientnet_lite0")
    state = cnn.from_tensors(config, read_torch(path), source=str(path))
    return Classifier(
        params=_on_device(state),
        config=config,
        preprocessing=DEMO_PREPROCESSING,
        class_names=imagenet_classes(),
        name="efficientnet-lite0",
    )


def read_tensors(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint folder by name, as NumPy arrays. Raises FileNotFoundError, ValueError."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(_read_json(index)["weight_map"].values()))
        return {name: tensor for file in files for name, tensor in _read_safetensors(folder / Path(file).name).items()}
    for name in _WEIGHTS:
        path = folder / name
        if path.exists():
            return _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    raise FileNotFoundError(f"{folder} holds no weights; expected one of {', '.join(_WEIGHTS)}")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  gives NumPy the name "bfloat16", which safetensors looks up
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); download or save it again") from None


def _network(settings: Mapping[str, Any], tensors: dict[str, np.ndarray], folder: Path) -> tuple[Any, Any]:
    """The network's config and its parameters."""
    kind = str(settings.get("model_type") or settings.get("architecture") or "")
    architecture = str((settings.get("architectures") or [kind])[0]).lower()
    if kind in ("vit", "deit"):
        config = _huggingface_vit(settings, tensors, kind, "withteacher" in architecture)
        return config, _on_device(vit.from_tensors(config, tensors, source=str(folder)))
    if kind.startswith(("vit_", "deit_")):
        config = _timm_vit(kind, settings, tensors)
        return config, _on_device(vit.from_tensors(config, tensors, source=str(folder)))
    if "efficientnet_lite0" in kind or kind.replace("_", "").startswith("mobilenetv2"):
        config = cnn.config_from_settings(settings, tensors)
        return config, _on_device(cnn.from_tensors(config, tensors, source=str(folder)))
    raise InputError(
        f"{folder / 'config.json'}: expected a model_type of vit, deit or mobilenet_v2, or a timm architecture vit_*, "
        f"deit_*, efficientnet_lite0 or mobilenetv2_*; got {kind or 'neither key'!r}"
    )


def _huggingface_vit(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], kind: str, teacher: bool
) -> vit.VisionTransformerConfig:
    head = tensors.get("cls_classifier.bias" if teacher else "classifier.bias", np.zeros(_num_labels(settings)))
    return vit.VisionTransformerConfig(
        image_size=_side(settings.get("image_size", 224)),
        patch_size=_side(settings.get("patch_size", 16)),
        hidden_size=settings.get("hidden_size", 768),
        num_layers=settings.get("num_hidden_layers", 12),
        num_heads=settings.get("num_attention_heads", 12),
        mlp_dim=settings.get("intermediate_size", 3072),
        num_classes=len(head) if head.ndim else _num_labels(settings),
        norm_eps=settings.get("layer_norm_eps", 1e-12),
        qkv_bias=settings.get("qkv_bias", True),
        activation=settings.get("hidden_act", "gelu"),
        distilled=kind == "deit",
        teacher=teacher,
    )


def _timm_vit(kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> vit.VisionTransformerConfig:
    """timm's config names the architecture only: the sizes are read off the tensors."""
    try:
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        mlp = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        classes = tensors["head.weight"].shape[0]
        tokens = tensors["pos_embed"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"expected timm's tensors for {kind} (patch_embed.proj.weight, head.weight, ...): {error}"
        ) from None
    distilled = "dist_token" in tensors
    # timm's heads are 64 wide except in the two largest families.
    head_width = 80 if "_huge_" in kind else 88 if "_giant_" in kind else 64
    return vit.VisionTransformerConfig(
        image_size=round((tokens - 1 - distilled) ** 0.5) * patch,
        patch_size=patch,
        hidden_size=width,
        num_layers=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        num_heads=settings.get("num_heads") or max(1, width // head_width),
        mlp_dim=mlp,
        num_classes=classes,
        norm_eps=1e-6,
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        distilled=distilled,
        teacher="head_dist.weight" in tensors,
    )


def _class_names(settings: Mapping[str, Any], count: int, folder: Path) -> tuple[str, ...]:
    labels = settings.get("id2label")
    if labels is None:
        labels = settings.get("label_names")
    if isinstance(labels, Mapping) and len(labels) == count:
        names = {int(k): str(v) for k, v in labels.items()}
        if set(names) != set(range(count)):
            raise InputError(f"{folder / 'config.json'}: expected id2label to name the classes 0 .. {count - 1}")
        return tuple(names[i] for i in range(count))
    if isinstance(labels, list) and len(labels) == count:
        return tuple(map(str, labels))
    if count == 1000:
        return imagenet_classes()
    return tuple(f"class {i}" for i in range(count))


def _num_labels(settings: Mapping[str, Any]) -> int:
    return len(settings.get("id2label") or ()) or settings.get("num_labels") or settings.get("num_classes") or 1000


def _side(size: Any) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise InputError(f"expected square images and patches; got {size}")
    return int(sides.pop())


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; expected a checkpoint folder that holds one")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; got a {type(content).__name__}")
    return content


def _on_device(state: Any) -> Any:
    return jax.tree.map(jax.numpy.asarray, state)
