"""How the published weights of convolutional networks see a photo, by the names of timm and torchvision.

Source: timm 1.0 (Apache 2.0), the `default_cfgs` of `convnext.py`, `efficientnet.py`, `mobilenetv3.py` and `resnet.py`;
torchvision 0.29 (BSD 3-Clause), the `transforms` of the same networks' weights. The tests compare the tables with both.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from jaxmoxi.models.networks.base import ImageSize, checked_size
from jaxmoxi.models.networks.timm_names import split_name
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD

_IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
_HALF = (HALF, HALF)
_CLIP = (CLIP_MEAN, CLIP_STD)
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class _Cfg(NamedTuple):
    """The part of timm's `pretrained_cfg` about photos."""

    numbers: tuple[tuple[float, ...], tuple[float, ...]]
    side: int
    crop_pct: float
    interpolation: str = "bicubic"
    crop_mode: str = "center"


# The first pattern that fits decides. Architecture and tag stand in it as timm writes them; "@" is the absent tag, for
# which timm takes the weights it likes best.
_TIMM: tuple[tuple[str, _Cfg], ...] = (
    ("convnext_base.clip_laiona_augreg_ft_in1k_384", _Cfg(_CLIP, 384, 1.0)),
    ("convnext_*.clip_*_384", _Cfg(_CLIP, 384, 1.0, crop_mode="squash")),
    ("convnext_*.clip_*_320", _Cfg(_CLIP, 320, 1.0)),
    ("convnext_*.clip_*", _Cfg(_CLIP, 256, 1.0)),
    ("convnext_large_mlp.@", _Cfg(_CLIP, 320, 1.0)),
    ("convnext_xxlarge.@", _Cfg(_CLIP, 256, 1.0)),
    ("convnext_nano.r384_*", _Cfg(_IMAGENET, 384, 1.0)),
    ("convnext_*.*_in1k_384", _Cfg(_IMAGENET, 384, 1.0, crop_mode="squash")),
    ("convnext_*.in12k*", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_nano*.d1h_in1k", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_nano*.@", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_pico_ols.d1_in1k", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_pico_ols.@", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_tiny_hnf.a2h_in1k", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_tiny_hnf.@", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_tiny.@", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_small.@", _Cfg(_IMAGENET, 224, 0.95)),
    ("convnext_*.fb_in1k", _Cfg(_IMAGENET, 224, 0.875)),
    ("convnext_*.fb_in22k*", _Cfg(_IMAGENET, 224, 0.875)),
    ("convnext_*.[ad][12]_in1k", _Cfg(_IMAGENET, 224, 0.875)),
    *((f"convnext_{size}.@", _Cfg(_IMAGENET, 224, 0.875)) for size in (
        "atto", "atto_ols", "femto", "femto_ols", "pico", "base", "large", "xlarge")),
    ("convnextv2_*.fcmae_*_384", _Cfg(_IMAGENET, 384, 1.0, crop_mode="squash")),
    ("convnextv2_huge.fcmae_*_512", _Cfg(_IMAGENET, 512, 1.0, crop_mode="squash")),
    ("convnextv2_*.fcmae_*", _Cfg(_IMAGENET, 224, 0.875)),
    ("efficientnet_b0.ra4_e3600_r224_in1k", _Cfg(_HALF, 224, 0.9)),
    ("efficientnet_b0.*", _Cfg(_IMAGENET, 224, 0.875)),
    ("efficientnet_b1.ft_in1k", _Cfg(_IMAGENET, 224, 0.875)),
    ("efficientnet_b1.*", _Cfg(_HALF, 240, 0.9)),
    ("efficientnet_b2.*", _Cfg(_IMAGENET, 256, 0.875)),
    ("efficientnet_b3.*", _Cfg(_IMAGENET, 288, 0.875)),
    ("efficientnet_b4.*", _Cfg(_IMAGENET, 320, 0.875)),
    ("efficientnet_b5.sw_in12k", _Cfg(_IMAGENET, 416, 0.95)),
    ("efficientnet_b5.*", _Cfg(_IMAGENET, 448, 1.0, crop_mode="squash")),
    *((f"tf_efficientnet_b{i}{end}", _Cfg(numbers, side, crop_pct))
      for i, (side, crop_pct) in enumerate((
          (224, 0.875), (240, 0.882), (260, 0.89), (300, 0.904), (380, 0.922), (456, 0.934), (528, 0.942), (600, 0.949),
          (672, 0.954)))
      for end, numbers in ((".ap_in1k", _HALF), ("_ap.@", _HALF), ("_ns.@", _IMAGENET), (".*", _IMAGENET))),
    ("resnet101.a1h_in1k", _Cfg(_IMAGENET, 224, 0.95)),
    ("resnet152.a1h_in1k", _Cfg(_IMAGENET, 224, 0.95)),
    ("resnet50.a1h_in1k", _Cfg(_IMAGENET, 176, 0.9)),
    ("resnet50.bamboo", _Cfg(_IMAGENET, 224, 1.0)),
    ("resnet34.ra4_e3600_r224_in1k", _Cfg(_HALF, 224, 0.9)),
    ("*resnet*.a3_in1k", _Cfg(_IMAGENET, 160, 0.95)),
    ("*resnet*.tv2_in1k", _Cfg(_IMAGENET, 176, 0.875, "bilinear")),
    *((f"*resnet*.{tag}_in1k", _Cfg(_IMAGENET, 224, 0.875, "bilinear"))
      for tag in ("tv", "fb_ssl_yfcc100m_ft", "fb_swsl_ig1b_ft")),
    *((f"*resnet*.{tag}_in1k", _Cfg(_IMAGENET, 224, 0.95)) for tag in ("a[12]", "b[12]k", "c[12]", "d")),
    *((f"*resnet*.{tag}_in1k", _Cfg(_IMAGENET, 224, 0.875)) for tag in ("am", "bt", "gluon", "ra", "racm", "ram")),
    ("mobilenetv3_large_100.ra4_*", _Cfg(_HALF, 224, 0.95)),
    ("mobilenetv3_large_100.miil_*", _Cfg(_UNIT, 224, 0.875, "bilinear")),
    ("mobilenetv3_large_100.*", _Cfg(_IMAGENET, 224, 0.875)),
    ("mobilenetv3_small_*.*", _Cfg(_IMAGENET, 224, 0.875)),
    ("tf_mobilenetv3_*.*", _Cfg(_HALF, 224, 0.875, "bilinear")),
)  # fmt: skip

# (resize, crop, filter) of torchvision's default weights, its newest; 2 is bilinear, 3 bicubic.
_TORCHVISION = {
    "convnext_tiny": (236, 224, 2),
    "convnext_small": (230, 224, 2),
    "convnext_base": (232, 224, 2),
    "convnext_large": (232, 224, 2),
    "efficientnet_b0": (256, 224, 3),
    "efficientnet_b1": (255, 240, 2),
    "efficientnet_b2": (288, 288, 3),
    "efficientnet_b3": (320, 300, 3),
    "efficientnet_b4": (384, 380, 3),
    "efficientnet_b5": (456, 456, 3),
    "efficientnet_b6": (528, 528, 3),
    "efficientnet_b7": (600, 600, 3),
    "mobilenet_v3_large": (232, 224, 2),
    "mobilenet_v3_small": (256, 224, 2),
}


def published_cfg(name: str) -> dict[str, Any] | None:
    """The keys of timm's `pretrained_cfg` about photos, for a name with or without a tag; None for other names."""
    architecture, tag = split_name(name)
    for pattern, cfg in _TIMM:
        if fnmatchcase(f"{architecture}.{tag or '@'}", pattern):
            mean, std = cfg.numbers
            return {
                "mean": mean, "std": std, "input_size": (3, cfg.side, cfg.side), "crop_pct": cfg.crop_pct,
                "interpolation": cfg.interpolation, "crop_mode": cfg.crop_mode,
            }  # fmt: skip
    return None


def published_size(name: str, *, torchvision: bool) -> ImageSize:
    """The images that the published weights of this name are meant for, in pixels; 224 for names that nobody knows."""
    found = torchvision_photos(name) if torchvision else published_photos(name)
    return 224 if found is None else checked_size(found.size)


def published_photos(name: str, size: int | None = None) -> Preprocessing | None:
    """How the weights that timm publishes by this name see a photo, at their own size or for `size` pixels."""
    cfg = published_cfg(name)
    if cfg is None:
        return None
    return Preprocessing.from_timm(cfg if size is None else {**cfg, "input_size": (3, size, size)})


def torchvision_photos(name: str, size: int | None = None) -> Preprocessing | None:
    """How the weights that torchvision publishes by this name see a photo, at their own size or for `size` pixels."""
    if name not in _TORCHVISION:
        return None
    resize, crop, resample = _TORCHVISION[name]
    found = Preprocessing(resize, (crop, crop), resample, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_rounding="even")
    return found if size is None else found.to_size((size, size))
