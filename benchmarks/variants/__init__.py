# pyright: reportMissingImports=false
"""Networks as PyTorch has them: what `architectures.py` compares and `throughput.py` races, one file a family.

A file lists its variants in VARIANTS, each at its real size, and in TINY small ones for the golden files of the tests,
one for every branch in the structure.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network of one library.

    architecture: what tables call it: "ResNet-50".
    naming:       whose names its tensors have: "transformers", "timm" or "torchvision".
    make:         makes the PyTorch module, with random weights.
    settings:     the content of `config.json`; of transformers' networks their own.
    size:         (height, width) of the images to compare on; None: as the config says.
    image_size:   what `jm.models.load` is asked for: the network at another size than its weights' own.
    forward:      options of the module's call.
    variance:     what BatchNorm's running variances lie around. Below 1 where blocks damp what passes through them, as
                  gates do: otherwise the logits would be the last bias and tell nothing.
    """

    architecture: str
    naming: str
    make: Callable[[], Any]
    settings: dict[str, Any] | None = None
    size: tuple[int, int] = (224, 224)
    channels: int = 3
    image_size: tuple[int, int] | None = None
    forward: dict[str, Any] = dataclasses.field(default_factory=dict)
    variance: float = 1.0

    def write(self, folder: Path, tensors_of: Callable[[dict[str, tuple[int, ...]]], dict[str, np.ndarray]]) -> Any:
        """A checkpoint folder with weights of `tensors_of(shapes)`, and the PyTorch module that has them."""
        import torch
        from safetensors.numpy import load_file, save_file

        module = self.make()
        if self.naming == "transformers":
            module.save_pretrained(folder)
            saved = load_file(folder / "model.safetensors")
            made = {n: t for n, t in saved.items() if t.dtype.kind != "f"}
            made |= tensors_of({n: t.shape for n, t in saved.items() if t.dtype.kind == "f"})
            # A counter without axes would be given one by np.ascontiguousarray.
            whole = {n: np.ascontiguousarray(t).reshape(t.shape) for n, t in made.items()}
            save_file(whole, folder / "model.safetensors", {"format": "pt"})
            return type(module).from_pretrained(folder).eval()
        state = module.state_dict()
        made = tensors_of({n: tuple(t.shape) for n, t in state.items() if t.is_floating_point()})
        module.load_state_dict({n: torch.from_numpy(t) for n, t in made.items()}, strict=False)
        save_file({n: np.ascontiguousarray(t) for n, t in made.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.settings or {}))
        return module.eval()


def of_transformers(architecture: str, name: str, size: int | tuple[int, int] = 224, **config: Any) -> Variant:
    """`{name}ForImageClassification` of this config; a name such as "DeiTWithTeacher" has its ending behind."""
    kind, _, ending = name.partition("With")
    ending = f"With{ending}" if ending and ending != "Registers" else ""
    kind = name if not ending else kind

    def make() -> Any:
        import transformers

        network = getattr(transformers, f"{kind}ForImageClassification{ending}")
        return network(getattr(transformers, f"{kind}Config")(**{"num_labels": 1000, **config}))

    return Variant(architecture, "transformers", make, None, _both(size), config.get("num_channels", 3))


def of_timm(architecture: str, name: str, size: int | tuple[int, int] = 224, **args: Any) -> Variant:
    """`timm.create_model(name, **args)`."""

    def make() -> Any:
        import timm

        return timm.create_model(name, **args)

    settings = {"architecture": name, "num_classes": args.get("num_classes", 1000), "model_args": args}
    settings["pretrained_cfg"] = {"input_size": [args.get("in_chans", 3), *_both(size)], "tag": "in1k"}
    return Variant(architecture, "timm", make, settings, _both(size), args.get("in_chans", 3))


def of_torchvision(architecture: str, name: str, size: int | tuple[int, int] = 224, **args: Any) -> Variant:
    """`torchvision.models.NAME(**args)`; its folder is made by hand."""

    def make() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(**args)

    return Variant(architecture, "torchvision", make, {"architecture": name}, _both(size))


def at(variant: Variant, size: tuple[int, int], **forward: Any) -> Variant:
    """The same weights for images of another size; `forward` are options of the PyTorch module's call."""
    name = f"{variant.architecture} at {size[0]} x {size[1]}"
    return dataclasses.replace(variant, architecture=name, size=size, image_size=size, forward=forward)


def every(kind: str) -> list[Variant]:
    """The list of this name, "VARIANTS" or "TINY", of all files."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [v for name in names for v in getattr(importlib.import_module(f"{__name__}.{name}"), kind)]


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
