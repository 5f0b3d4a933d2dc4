"""Labelled images with superpixels: from folders, from archives, or synthetic."""

from jaxmoxi.p2p.data.augment import Augmentation, augment, resize_and_crop
from jaxmoxi.p2p.data.cifar import CIFAR10, CIFAR10_CLASSES
from jaxmoxi.p2p.data.coco import COCO10_CLASSES, build_coco10
from jaxmoxi.p2p.data.example import Batch, Example, Source
from jaxmoxi.p2p.data.files import BAM, COCO10, IMAGENET9_CLASSES, ImageFolder, ImageNet9
from jaxmoxi.p2p.data.loader import Loader, merge_regions, presegment
from jaxmoxi.p2p.data.scenes import CLASSES, Scenes, synthetic_scenes
from jaxmoxi.p2p.data.sources import Arrays, Subset, scene_source, split

__all__ = [
    "BAM",
    "CIFAR10",
    "CIFAR10_CLASSES",
    "CLASSES",
    "COCO10",
    "COCO10_CLASSES",
    "IMAGENET9_CLASSES",
    "Arrays",
    "Augmentation",
    "Batch",
    "Example",
    "ImageFolder",
    "ImageNet9",
    "Loader",
    "Scenes",
    "Source",
    "Subset",
    "augment",
    "build_coco10",
    "merge_regions",
    "presegment",
    "resize_and_crop",
    "scene_source",
    "split",
    "synthetic_scenes",
]
