"""What a P2P model is: one frozen record, validated when it is made, kept beside every checkpoint as JSON.

How a model is trained is no part of it; that stands in `p2p.TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.p2p.training.config import OBJECTIVE, Objective, warn_moved

_Class = TypeVar("_Class")


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer as P2P's classifier. The `Config` gives its image size and its number of classes."""

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

    widths: channels of the stages, multiples of 8. Each stage halves the side of the image.
    """

    widths: tuple[int, ...] = (24, 48, 96)

    def __post_init__(self):
        if not self.widths or any(not isinstance(w, int) or w < 8 or w % 8 for w in self.widths):
            raise InputError(f"expected widths that are multiples of 8; got {self.widths!r}")


def _accepts_moved(cls: type[_Class]) -> type[_Class]:
    """Lets `Config` still take the settings that are now in `TrainConfig`: with a warning, and for `fit` to find."""
    init = cls.__init__

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **settings: Any) -> None:
        given = {name: settings.pop(name) for name in OBJECTIVE if name in settings}
        if given:
            warn_moved("p2p.Config", given, stacklevel=2)
            settings["moved"] = {**(settings.get("moved") or {}), **given}
            Objective(**settings["moved"])  # raises for values that cannot be
        init(self, *args, **settings)

    cls.__init__ = wrapped  # type: ignore[misc]
    return cls


@_accepts_moved
@dataclasses.dataclass(frozen=True)
class Config:
    """What a P2P model is. Raises ValueError for impossible values.

    num_classes:       number of classes K, at least 2.
    num_groups:        G, the most superpixels that an image may have.
    image_size:        side of the images, in pixels.
    classifier:        `ViTConfig`, `ResNetConfig` or `CNNConfig`.
    selector:          "lraspp" (the published one) or "small", for images up to about 96 pixels.
    embedding_size:    dimensions of the groups' embedding (D - 1); 0 makes the groups independent.
    dynamic_threshold: True draws the share to keep for each image in training, and finds it for each image at test
                       time; False always uses `threshold`.
    threshold:         the fixed share, in (0, 1].
    threshold_input:   how the threshold enters the selector. "shift", as published, adds the same number to each
                       group's logit; "rerank" can also change the order of the groups (see `selector.Reranking`).
    exact_budget:      True never keeps more than the share that the threshold allows (see
                       `distribution.within_budget`).
    min_threshold:     the smallest dynamic threshold, and the step of the grid of thresholds, in (0, 1].
    max_threshold:     the largest dynamic threshold, in (0, 1]; 1, as published. An image is classified at this share
                       at the latest, even where the classifier is less certain than asked for.
    mean, std:         normalisation of the images, for each channel.
    fill:              value of a hidden pixel in every channel, in [0, 1], before the normalisation; 0 is black.
    masking:           what the classifier sees: "groups", P2P's way; or that of a method it is compared with, "soft" or
                       "even" (see `masking`). `fit` sets it by `TrainConfig.method`.
    moved:             settings of `TrainConfig` that were given here, which is deprecated; not part of the model.
    """

    num_classes: int
    num_groups: int = 100
    image_size: int = 224
    classifier: ViTConfig | ResNetConfig | CNNConfig = ViTConfig()
    selector: Literal["lraspp", "small"] = "lraspp"
    embedding_size: int = 3
    dynamic_threshold: bool = True
    threshold: float = 0.3
    threshold_input: Literal["shift", "rerank"] = "shift"
    exact_budget: bool = False
    min_threshold: float = 0.05
    max_threshold: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fill: float = 0.0
    masking: Literal["groups", "soft", "even"] = "groups"
    moved: Mapping[str, Any] | None = dataclasses.field(default=None, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        for name, least in (("num_classes", 2), ("num_groups", 1), ("image_size", 8)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}")
        if self.embedding_size < 0:
            raise InputError(f"embedding_size must be at least 0; got {self.embedding_size}")
        if self.selector not in ("lraspp", "small"):
            raise InputError(f'expected a selector of "lraspp" or "small"; got {self.selector!r}')
        if self.threshold_input not in ("shift", "rerank"):
            raise InputError(f'expected a threshold_input of "shift" or "rerank"; got {self.threshold_input!r}')
        if self.threshold_input == "rerank" and not self.dynamic_threshold:
            raise InputError('threshold_input="rerank" needs dynamic_threshold=True: a fixed threshold is no input')
        for name in ("threshold", "min_threshold", "max_threshold"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(f"{name} must lie in (0, 1]; got {value!r}")
        if self.min_threshold > self.max_threshold:
            raise InputError(
                f"expected min_threshold <= max_threshold; got {self.min_threshold!r} and {self.max_threshold!r}"
            )
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if len(numbers) != 3 or not all(math.isfinite(x) and (name == "mean" or x > 0) for x in numbers):
                raise InputError(f"expected a {name} of three finite numbers, a std's above 0; got {numbers}")
        if not 0 <= self.fill <= 1:
            raise InputError(f"fill must lie in [0, 1]; got {self.fill!r}")
        if self.masking not in ("groups", "soft", "even"):
            raise InputError(f'expected a masking of "groups", "soft" or "even"; got {self.masking!r}')
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
        del fields["moved"]
        if self.masking == "groups":  # as it was before there were others
            del fields["masking"]
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The configuration that `to_json` wrote. What older files say about training is passed over.

        Raises ValueError for anything else, also for unknown and missing names.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields = {name: value for name, value in fields.items() if name not in OBJECTIVE}
            classifier = dict(fields.pop("classifier"))
            kind = _KINDS[classifier.pop("kind")]
            fields |= {name: tuple(fields[name]) for name in ("mean", "std")}
            classifier = {name: tuple(x) if isinstance(x, list) else x for name, x in classifier.items()}
            return cls(classifier=kind(**classifier), **fields)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"expected the JSON of a p2p.Config: {type(error).__name__}: {error}") from None


_KINDS = {"vit": ViTConfig, "resnet": ResNetConfig, "cnn": CNNConfig}
