"""Networks of every family against the answers of PyTorch: `benchmarks/architectures.py --golden` wrote the files."""

import json
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmoxi as jm
from support.checkpoints import write_folder
from support.networks import made_images, made_tensors

FILES = sorted((Path(__file__).parents[2] / "golden" / "networks").glob("*.json"))
# Deep ones, which take seconds to compile; their names and shapes are checked in the tests of their families.
SLOW = {
    "timm-convnext", "timm-convnextv2", "timm-efficientnet", "timm-efficientnet-tf", "timm-mobilenetv3-large",
    "torchvision-convnext", "torchvision-efficientnet", "torchvision-mobilenetv3-large",
    "torchvision-mobilenetv3-small",
}  # fmt: skip


def _cases():
    return [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in FILES]


@pytest.mark.parametrize("path", _cases())
def test_the_logits_are_pytorchs(tmp_path, path):
    golden = json.loads(path.read_text())
    height, width, channels = golden["image"]
    write_folder(tmp_path, golden["settings"], made_tensors(golden["shapes"], golden.get("variance", 1.0)), None)
    preprocessing = jm.models.Preprocessing(resize=(height, width), mean=(0.5,) * channels, std=(0.5,) * channels)
    size = golden["image_size"] and tuple(golden["image_size"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = jm.models.load(tmp_path, preprocessing=preprocessing, image_size=size)
    images, expected = made_images((height, width), channels), np.array(golden["logits"])
    logits = jax.jit(type(model).logits)(model, images)
    np.testing.assert_allclose(logits, expected, atol=2e-4 * max(1.0, np.abs(expected).max()))


def test_the_golden_files_are_there():
    assert FILES
