"""A network and photos small enough for a whole study in seconds."""

import dataclasses
import io

import numpy as np
from PIL import Image

from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import vit
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.study import StudyConfig, store
from jaxmoxi.study.records import to_arrays
from support.games import golden_tensor

CLASSES = ("red", "green", "blue", "grey")
METHODS = ("gradient", "moxi", "random")


def tiny_classifier(name="tiny"):
    config = vit.VisionTransformerConfig(
        image_size=16, patch_size=4, hidden_size=16, num_layers=2, num_heads=2, mlp_dim=32, num_classes=4
    )
    shapes = vit.expected_tensors(config, "vit")
    tensors = {key: golden_tensor(name, key, shape, 0.7) for key, shape in shapes.items()}
    params = vit.from_tensors(config, tensors, source=name)
    return Classifier(params, config, Preprocessing(resize=(16, 16)), CLASSES, name)


def tiny_config(**changes):
    config = StudyConfig(methods=METHODS, regions="grid:2x4", samples=8)
    return dataclasses.replace(config, **changes)


def write_photos(folder, count=5):
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / CLASSES[i % 4] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    return folder


def save(path, size=(8, 6), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def broken_files(folder):
    """Ways for a file not to be a photo, written into a folder; (name, what is said of it)."""
    good = io.BytesIO()
    save(folder / "whole.jpg", size=(64, 48))
    Image.open(folder / "whole.jpg").save(good, "JPEG")
    png = io.BytesIO()
    Image.open(folder / "whole.jpg").save(png, "PNG")
    (folder / "whole.jpg").unlink()
    files = {
        "empty.jpg": (b"", "not an image"),
        "text.png": (b"<html>404</html>", "not an image"),
        "cut.jpg": (good.getvalue()[:-400], "truncated"),
        "cut.png": (png.getvalue()[:2000], "truncated|broken|Truncated"),
        "head.png": (png.getvalue()[:20], "."),
        "noise.png": (png.getvalue()[:60] + b"\x00" * 500, "."),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return [(name, message) for name, (_, message) in files.items()]


def files(out):
    """Everything that must not depend on how a study came about; the seconds that a photo took do."""
    names = ["report.md", "table.parquet", "study.json", *sorted(p.name for p in (out / "figures").iterdir())]
    found = {n: ((out / n) if (out / n).exists() else out / "figures" / n).read_bytes() for n in names}
    for path in sorted((out / "shards").iterdir()):
        results = [result._replace(seconds=0.0) for result in store.read_shard(path)]
        found |= {f"{path.name} {name}": array.tobytes() for name, array in to_arrays(results).items()}
    return found
