"""Settings that go together. Each function's docstring says how to run it, on what, and what to expect."""

from __future__ import annotations

from typing import NamedTuple

from jaxmoxi.p2p.config import CNNConfig, Config, ResNetConfig, ViTConfig
from jaxmoxi.p2p.data import Augmentation
from jaxmoxi.p2p.training.config import TrainConfig

CLASSIFIERS: dict[str, ViTConfig | ResNetConfig | CNNConfig] = {
    "vit-tiny": ViTConfig(hidden_size=192, num_layers=12, num_heads=3, mlp_dim=768, patch_size=16),
    "vit-base": ViTConfig(hidden_size=768, num_layers=12, num_heads=12, mlp_dim=3072, patch_size=16),
    "resnet18": ResNetConfig(18),
    "resnet34": ResNetConfig(34),
    "small": CNNConfig(),
}


class Preset(NamedTuple):
    """config: what the model is. train: how it is trained."""

    config: Config
    train: TrainConfig


def scenes(num_classes: int = 6) -> Preset:
    """Synthetic scenes of 64 x 64 pixels, from scratch.

    Command:  jaxmoxi train --data scenes --out runs/scenes
    Hardware: two CPU cores, 7 minutes.
    Result:   at certainty 0.99, of three seeds: accuracy 99.3 to 99.5 %, seeing 5.9 to 6.2 % of the pixels, of which
              93.7 to 95.4 % are on the object (`examples/scenes/`).

    The published training starts from a trained classifier; this one starts from random weights, and differs from it
    in three ways. The first epochs train the classifier alone, the sparsity term has no full first epoch, and the
    logits are kept from saturating. Without the first two the selector keeps nothing after an epoch; without the third
    it stays with about the groups that it chose first.
    """
    config = Config(
        num_classes=num_classes,
        num_groups=100,
        image_size=64,
        classifier=CLASSIFIERS["small"],
        selector="small",
        max_threshold=0.25,
    )
    train = TrainConfig(
        num_epochs=16,
        whole_epochs=4,
        regulariser_weight=8.0,
        logit_weight=0.02,
        full_first_epoch=False,
        batch_size=32,
        learning_rate=3e-3,
        weight_decay=0.02,
        augment=Augmentation(crop=None, colour=0.0, turn=True),
        eval_every=4,
    )
    return Preset(config, train)


def imagenet(num_classes: int = 1000) -> Preset:
    """The published settings for ImageNet: 224 x 224 pixels, 100 superpixels, ViT-Tiny, 20 epochs of Adam.

    Command:  jaxmoxi train --data imagenet:DIR --init VIT_TINY_FOLDER --out runs/imagenet
    Hardware: one GPU, days.

    Other data of photographs (ImageNet-9, BAM, COCO-10, folders) take 100 epochs: `--epochs 100`.
    """
    config = Config(num_classes=num_classes, classifier=CLASSIFIERS["vit-tiny"])
    return Preset(config, TrainConfig(num_epochs=20, learning_rate=1e-4, schedule="constant", warmup=0.0))


def cifar10(num_classes: int = 10) -> Preset:
    """CIFAR-10 enlarged to 224 x 224 pixels, otherwise as `imagenet`, with 100 epochs.

    Command:  jaxmoxi train --data cifar10:PATH --init VIT_TINY_FOLDER --out runs/cifar10
    Hardware: one GPU, a day.
    Published, at certainty 0.8 / 0.9 / 0.95 / 0.99: accuracy 85.7 / 89.7 / 92.1 / 94.5 %, seeing 13.2 / 15.6 / 18.0 /
    23.5 % of the pixels.
    """
    config = Config(num_classes=num_classes, classifier=CLASSIFIERS["vit-tiny"])
    return Preset(config, TrainConfig(num_epochs=100, learning_rate=1e-4, schedule="constant", warmup=0.0))


def cifar10_96(num_classes: int = 10) -> Preset:
    """CIFAR-10 enlarged to 96 x 96 pixels, for a CPU: a trained ViT-Tiny reads 36 patches, the small selector chooses.

    Command:  jaxmoxi train --data cifar10:PATH --preset cifar10-96 --init VIT_TINY_FOLDER --out runs/cifar10
    Result:   of five epochs that began from the classifier of a black-box twin (94.2 %), with `--whole-epochs 0`, in 67
              minutes of a core: at certainty 0.99 accuracy 74.2 %, seeing 19.9 % of the pixels. Six more, through masks
              of 0 and 1 (`--init-selector`, `--straight-through`), in 87 minutes: 88.1 % seeing 33.2 % at 0.99, and
              86.2 % seeing 22.8 % at 0.9. Three more of the classifier alone (`--freeze-selector`), in 36 minutes:
              88.2 % seeing 30.7 %, and 85.3 % seeing 20.4 %. The commands are in `examples/cifar10/`.

    As in `scenes`, the first epochs train the classifier alone, the sparsity term has no full first epoch, and the
    logits are kept from saturating, but by a twentieth of that weight: with more, and with a sparsity term whose weight
    grew by epochs, the selector went to one probability for every superpixel. So it grows with every step. Thresholds
    end at 0.4, so that the few epochs are spent where the answers are. The selector starts from random weights, beside
    a trained classifier, and learns ten times as fast.
    """
    config = Config(
        num_classes=num_classes,
        image_size=96,
        classifier=CLASSIFIERS["vit-tiny"],
        selector="small",
        max_threshold=0.4,
    )
    train = TrainConfig(
        num_epochs=6,
        whole_epochs=1,
        regulariser_weight=4.0,
        logit_weight=0.001,
        full_first_epoch=False,
        growth="geometric",
        batch_size=64,
        learning_rate=2e-4,
        selector_rate=10.0,
        weight_decay=0.02,
        augment=Augmentation(crop="shifted", colour=0.0),
        certainty=0.99,
        validation_share=0.04,
        save_every=200,
    )
    return Preset(config, train)


PRESETS = {"scenes": scenes, "imagenet": imagenet, "cifar10": cifar10, "cifar10-96": cifar10_96}
