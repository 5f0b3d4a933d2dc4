"""The tables of timm's names, against timm where it is installed."""

from fnmatch import fnmatchcase

import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.models.networks import families, vit
from jaxmoxi.models.networks.timm_names import HEADS, known_heads, published_cfg
from jaxmoxi.models.preprocess import Preprocessing

IMAGENET, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "heads", "mean", "crop_pct"),
    [
        ("vit_tiny_patch16_224", 3, HALF, 0.9),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", 6, HALF, 0.9),
        ("vit_small_patch16_224.dino", 6, IMAGENET, 0.9),
        ("vit_base_patch16_384", 12, HALF, 1.0),
        ("vit_huge_patch14_224.mae", 16, IMAGENET, 0.9),
        ("deit_tiny_distilled_patch16_224.fb_in1k", 3, IMAGENET, 0.9),
        ("deit_base_patch16_384", 12, IMAGENET, 1.0),
        ("tf_efficientnet_lite0", None, HALF, 0.875),
        ("efficientnet_lite0", None, IMAGENET, 0.875),
        ("mobilenetv2_100.ra_in1k", None, IMAGENET, 0.875),
    ],
)
def test_names(name, heads, mean, crop_pct):
    cfg = published_cfg(name)
    assert known_heads(name) == heads
    assert (cfg["mean"], cfg["crop_pct"], cfg["interpolation"]) == (mean, crop_pct, "bicubic")
    assert Preprocessing.from_timm({**cfg, "input_size": (3, 224, 224)}).mean == mean


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch8_32", "mobilenetv2_110d", "resnet50", "", "vit_base_patch16_clip_224"]
)
def test_names_that_are_not_known(name):
    assert known_heads(name) is None
    assert published_cfg(name) is None


def accepted(timm):
    patterns = [pattern for family in families() for pattern in family.architectures]
    return [name for name in timm.list_models() if any(fnmatchcase(name, pattern) for pattern in patterns)]


def test_every_published_preprocessing_is_timms():
    timm = pytest.importorskip("timm", exc_type=ImportError)
    compared = 0
    for name in accepted(timm):
        for tag in ("", *timm.models.get_arch_pretrained_cfgs(name)):
            full = tag or name
            ours = published_cfg(full)
            if ours is None:
                continue
            theirs = timm.models.get_pretrained_cfg(full)
            numbers = {key: tuple(getattr(theirs, key)) for key in ("mean", "std")}
            numbers |= {key: getattr(theirs, key) for key in ("crop_pct", "interpolation")}
            assert ours == numbers, full
            assert theirs.crop_mode == "center"
            compared += 1
    assert compared > 80


@pytest.mark.slow
def test_every_other_architecture_is_refused():
    """The table holds each architecture whose tensors are the network's, with timm's heads; no other has them."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    timm = pytest.importorskip("timm", exc_type=ImportError)
    served = set()
    for name in accepted(timm):
        if not name.startswith(("vit_", "deit_")):
            continue
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=7)
        shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
        tensors = {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}  # of no memory
        try:
            config = vit.config_from_settings({"architecture": name, "num_heads": 1}, tensors)
        except jm.InputError:
            continue
        if vit.expected_tensors(config, "timm") == shapes:
            served.add(name)
            assert known_heads(name) == model.blocks[0].attn.num_heads, name
    assert served == set(HEADS)
