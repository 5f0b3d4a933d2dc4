"""What a P2P model is: one frozen record, validated when it is made, kept beside every checkpoint as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.vit import VisionTransformerConfig


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer as P2P's classifier: its image size and classes are those of the `Config`."""

    hidden_size: int = 192
    num_layers: int = 12
    num_heads: int = 3
    mlp_dim: int = 768
    patch_size: int = 16

    def full(self, image_size: int, num_classes: int) -> VisionTransformerConfig:
        """The configuration of the network itself."""
        return VisionTransformerConfig(image_size=image_size, num_classes=num_classes, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """ResNet-18 (`depth=18`) or ResNet-34 as P2P's classifier."""

    depth: Literal[18, 34] = 18

    def __post_init__(self):
        if self.depth not in (18, 34):
            raise InputError(f"expected a ResNet depth of 18 or 34; got {self.depth!r}")


@dataclasses.dataclass(frozen=True)
class CNNConfig:
    """A small convolutional network as P2P's classifier (`cnn.SmallCNN`), for images of up to about 96 pixels.

    widths: channels of its stages, each of half the side of the one before; multiples of 8.
    """

    widths: tuple[int, ...] = (24, 48, 96)

    def __post_init__(self):
        if not self.widths or any(not isinstance(w, int) or w < 8 or w % 8 for w in self.widths):
            raise InputError(f"expected widths that are multiples of 8; got {self.widths!r}")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that makes a P2P model. Raises ValueError for values that cannot be.

    num_classes, num_groups: K, and the most superpixels an image may have (G).
    image_size:         pixels of a side.
    classifier:         `ViTConfig`, `ResNetConfig` or `CNNConfig`.
    selector:           "lraspp" (the published one) or "small", for images up to about 96 pixels.
    embedding_size:     dimensions of the groups' embedding (D - 1); 0 makes the groups independent.
    num_samples:        Monte Carlo samples in training.
    dynamic_threshold:  the share to keep is drawn per image in training and found per image at test time;
                        False keeps `threshold`.
    threshold:          the fixed one, in (0, 1].
    threshold_input:    how the threshold enters the selector: "shift" adds the same to every group's logit, as
                        published; "rerank" can also change the groups' order (see `selector.Reranking`).
    exact_budget:       never keep more than the share that the threshold allows (see `distribution.within_budget`).
    min_threshold:      the least of the dynamic ones, and the step of the grid.
    max_threshold:      the largest, 1 as published: the share at which an image is classified as it is, however
                        uncertain that leaves the classifier.
    straight_through:   hard samples forward, relaxed gradients backward.
    final_temperature:  of the relaxed samples, reached at half of the epochs.
    regulariser, regulariser_weight, anneal, full_first_epoch: see `losses`.
    covariance_weight:  of the mean absolute covariance.
    logit_weight:       of the mean squared logit of the groups; 0, as published. Without it the logits of a selector
                        that is trained from random weights grow until every group is surely in or surely out, where
                        neither the classifier nor the sparsity can move it any more.
    mean, std:          of the normalisation; a hidden pixel is black, 0 before it.
    fill:               what a hidden pixel is, before the normalisation, in [0, 1].
    num_epochs:         of the training.
    whole_epochs:       the first of them train the classifier alone, on whole images; the schedules span the rest. 0,
                        as published, is for a classifier that comes trained: one that knows nothing yet gives the
                        selector no reason to keep anything.
    """

    num_classes: int
    num_groups: int = 100
    image_size: int = 224
    classifier: ViTConfig | ResNetConfig | CNNConfig = ViTConfig()
    selector: Literal["lraspp", "small"] = "lraspp"
    embedding_size: int = 3
    num_samples: int = 1
    dynamic_threshold: bool = True
    threshold: float = 0.3
    threshold_input: Literal["shift", "rerank"] = "shift"
    exact_budget: bool = False
    min_threshold: float = 0.05
    max_threshold: float = 1.0
    straight_through: bool = False
    final_temperature: float = 0.5
    regulariser: Literal["kl", "l1"] = "kl"
    regulariser_weight: float = 10.0
    anneal: bool = True
    full_first_epoch: bool = True
    covariance_weight: float = 0.01
    logit_weight: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fill: float = 0.0
    num_epochs: int = 20
    whole_epochs: int = 0

    def __post_init__(self):
        for name, least in (
            ("num_classes", 2),
            ("num_groups", 1),
            ("image_size", 8),
            ("num_samples", 1),
            ("num_epochs", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}")
        if self.embedding_size < 0:
            raise InputError(f"embedding_size must be at least 0; got {self.embedding_size}")
        if not 0 <= self.whole_epochs < self.num_epochs:
            raise InputError(
                f"whole_epochs must lie in 0 .. num_epochs - 1 = {self.num_epochs - 1}; got {self.whole_epochs!r}"
            )
        if self.selector not in ("lraspp", "small"):
            raise InputError(f'expected a selector of "lraspp" or "small"; got {self.selector!r}')
        if self.regulariser not in ("kl", "l1"):
            raise InputError(f'expected a regulariser of "kl" or "l1"; got {self.regulariser!r}')
        if self.threshold_input not in ("shift", "rerank"):
            raise InputError(f'expected a threshold_input of "shift" or "rerank"; got {self.threshold_input!r}')
        if self.threshold_input == "rerank" and not self.dynamic_threshold:
            raise InputError('threshold_input="rerank" needs dynamic_threshold=True: a fixed threshold is no input')
        for name in ("threshold", "min_threshold", "max_threshold", "final_temperature"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(f"{name} must lie in (0, 1]; got {value!r}")
        if self.min_threshold > self.max_threshold:
            raise InputError(
                f"expected min_threshold <= max_threshold; got {self.min_threshold!r} and {self.max_threshold!r}"
            )
        for name in ("regulariser_weight", "covariance_weight", "logit_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0; got {getattr(self, name)!r}")
        if isinstance(self.classifier, ViTConfig):
            self.classifier.full(self.image_size, self.num_classes)
        elif not isinstance(self.classifier, ResNetConfig | CNNConfig):
            raise InputError(f"expected a classifier of ViTConfig, ResNetConfig or CNNConfig; got {self.classifier!r}")

    @property
    def channels(self) -> int:
        """Numbers per pixel that the selector computes: the logit and the embedding."""
        return 1 + self.embedding_size

    def to_json(self) -> str:
        """The configuration as JSON; `from_json` reads it back."""
        kind = next(name for name, made in _KINDS.items() if isinstance(self.classifier, made))
        fields = dataclasses.asdict(self) | {"classifier": {"kind": kind, **dataclasses.asdict(self.classifier)}}
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Raises ValueError for what is not such a configuration, unknown and missing names included."""
        try:
            fields: dict[str, Any] = json.loads(text)
            classifier = dict(fields.pop("classifier"))
            kind = _KINDS[classifier.pop("kind")]
            fields |= {name: tuple(fields[name]) for name in ("mean", "std")}
            classifier = {name: tuple(x) if isinstance(x, list) else x for name, x in classifier.items()}
            return cls(classifier=kind(**classifier), **fields)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"expected the JSON of a p2p.Config: {type(error).__name__}: {error}") from None


_KINDS = {"vit": ViTConfig, "resnet": ResNetConfig, "cnn": CNNConfig}
