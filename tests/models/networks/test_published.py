"""The published preprocessing of convolutional networks, against timm and torchvision where they are installed."""

from fnmatch import fnmatchcase

import pytest

from jaxmoxi.models.networks import families
from jaxmoxi.models.networks.published import published_cfg, published_photos, published_size, torchvision_photos
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import HALF, IMAGENET_MEAN, IMAGENET_STD


def test_names():
    cfg = published_cfg("tf_efficientnet_b2.ap_in1k")
    assert (cfg["mean"], cfg["crop_pct"], cfg["input_size"]) == (HALF, 0.89, (3, 260, 260))
    assert published_cfg("tf_efficientnet_b2_ap") == cfg
    assert published_cfg("convnext_tiny.in12k_ft_in1k_384")["crop_mode"] == "squash"
    assert published_cfg("convnext_tiny.of_mine") is None
    assert published_cfg("resnet50") is None  # torchvision's, or any of timm's
    assert published_cfg("resnet50.a3_in1k")["input_size"] == (3, 160, 160)
    assert published_cfg("resnet50.mine_in1k") is None
    assert published_size("efficientnet_b2", torchvision=True) == 288
    assert published_size("efficientnet_b2", torchvision=False) == 256
    assert published_size("efficientnet_b2_mine", torchvision=False) == 224
    numbers = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop_rounding": "even"}
    assert torchvision_photos("mobilenet_v3_large") == Preprocessing(232, (224, 224), 2, **numbers)
    assert torchvision_photos("efficientnet_b3", 150).resize == 160
    assert torchvision_photos("mobilenet_v3") is None


def test_every_published_preprocessing_is_timms():
    timm = pytest.importorskip("timm", exc_type=ImportError)
    patterns = [pattern for family in families() for pattern in family.architectures]
    compared = 0
    for name in timm.list_models():
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        for tag in ("", *timm.models.get_arch_pretrained_cfgs(name)):
            full = tag or name
            ours, theirs = published_cfg(full), timm.models.get_pretrained_cfg(full)
            if ours is None or theirs.num_classes == 0:
                continue
            assert ours == {key: getattr(theirs, key) for key in ours}, full
            assert published_photos(full) == Preprocessing.from_timm(ours)
            compared += 1
    assert compared > 160


def test_every_published_preprocessing_is_torchvisions():
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    for name in [*(f"convnext_{size}" for size in ("tiny", "small", "base", "large")), "mobilenet_v3_large",
                 "mobilenet_v3_small", *(f"efficientnet_b{i}" for i in range(8))]:  # fmt: skip
        theirs = models.get_model_weights(name).DEFAULT.transforms()
        filters = {"bilinear": 2, "bicubic": 3}
        resample = filters[theirs.interpolation.value]
        crop, resize = theirs.crop_size[0], theirs.resize_size[0]
        ours = torchvision_photos(name)
        assert (ours.resize, ours.crop, ours.resample) == (resize, (crop, crop), resample), name
        assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))
