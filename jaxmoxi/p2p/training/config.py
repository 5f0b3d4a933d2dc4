"""What a training run does: two frozen records, validated when they are made, kept beside a run's checkpoints as JSON.

What a *model* is stands in `p2p.Config`. The two are apart so that models which were trained in different ways share
one compiled prediction.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.augment import Augmentation
from jaxmoxi.p2p.training.losses import Growth

Method = Literal["p2p", "blackbox", "blackbox-pixel-mask", "real-x", "comet", "comet-inverse"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a training step minimises, and how that changes over the epochs. Raises ValueError for impossible values.

    num_epochs:         epochs of training.
    whole_epochs:       how many of them come first and train the classifier alone, on whole images; the schedules span
                        the rest. The published training has 0 and starts from a trained classifier. A classifier with
                        random weights gives the selector no reason to keep anything.
    num_samples:        Monte Carlo samples of the groups' logits for each image and step.
    straight_through:   True uses hard samples (0 or 1) forward and the gradients of the relaxed samples backward.
    final_temperature:  temperature of the relaxed samples from half of the epochs on, in (0, 1].
    regulariser, regulariser_weight, anneal, full_first_epoch: the sparsity term; see `losses`.
    growth:             how its weight grows: "linear" by epochs, as published; or "geometric", by the same factor with
                        every step, and the temperature falls by steps too. With few epochs, the weight of "linear" is
                        many times larger from one epoch to the next, which can drive a selector to the same probability
                        for every superpixel. "geometric" needs full_first_epoch=False and anneal=True.
    covariance_weight:  weight of the mean absolute covariance.
    logit_weight:       weight of the mean squared logit of the groups; 0, as published. Without it, the logits of a
                        selector that starts from random weights grow until each group is almost surely kept or almost
                        surely dropped. From there, neither the classifier nor the sparsity term can move them.
    teacher_weight:     share, in [0, 1], of the target that is the divergence from a teacher's answer to the whole
                        image (`fit(teacher=...)`, `losses.divergence_from`); the label's cross entropy is the rest.
                        Both have gradients to the selector too, unless it is frozen, and the divergence has another
                        size than the cross entropy, which the sparsity term is weighed against. 0, as published, for
                        no teacher.
    teacher_temperature: the temperature, above 0, by which both answers are softened before they are compared.
    """

    num_epochs: int = 20
    whole_epochs: int = 0
    num_samples: int = 1
    straight_through: bool = False
    final_temperature: float = 0.5
    regulariser: Literal["kl", "l1"] = "kl"
    regulariser_weight: float = 10.0
    anneal: bool = True
    full_first_epoch: bool = True
    growth: Growth = "linear"
    covariance_weight: float = 0.01
    logit_weight: float = 0.0
    teacher_weight: float = 0.0
    teacher_temperature: float = 2.0

    def __post_init__(self):
        for name in ("num_epochs", "num_samples"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {value!r}")
        if not isinstance(self.whole_epochs, int) or not 0 <= self.whole_epochs < self.num_epochs:
            raise InputError(
                f"whole_epochs must lie in 0 .. num_epochs - 1 = {self.num_epochs - 1}; got {self.whole_epochs!r}"
            )
        if not 0 < self.final_temperature <= 1:
            raise InputError(f"final_temperature must lie in (0, 1]; got {self.final_temperature!r}")
        if self.regulariser not in ("kl", "l1"):
            raise InputError(f'expected a regulariser of "kl" or "l1"; got {self.regulariser!r}')
        if self.growth not in ("linear", "geometric"):
            raise InputError(f'expected a growth of "linear" or "geometric"; got {self.growth!r}')
        if self.growth == "geometric" and (self.full_first_epoch or not self.anneal):
            raise InputError(
                f'growth="geometric" starts from a small weight: it needs full_first_epoch=False and anneal=True; got '
                f"full_first_epoch={self.full_first_epoch}, anneal={self.anneal}"
            )
        for name in ("regulariser_weight", "covariance_weight", "logit_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite; got {getattr(self, name)!r}")
        for name, least, most in (("teacher_weight", 0, 1), ("teacher_temperature", 1e-3, 1e3)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InputError(f"{name} must be a number in [{least:g}, {most:g}]; got {value!r}")
        if not self.teacher_weight and self.teacher_temperature != Objective.teacher_temperature:
            raise InputError("teacher_temperature is about a teacher's answers; give a teacher_weight above 0 too")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Objective):
    """The settings of `fit`: the fields of `Objective` and the following. Raises ValueError for impossible values.

    num_epochs, whole_epochs, num_samples, straight_through, final_temperature, regulariser, regulariser_weight, anneal,
    full_first_epoch, growth, covariance_weight, logit_weight, teacher_weight, teacher_temperature: what a step
                      minimises; see `Objective`.
    batch_size:       images per step, over all devices together.
    learning_rate, weight_decay, schedule, warmup: AdamW's. The rate rises from 0 over the first `warmup`, a share of
                      the steps in [0, 1), and then falls to 0 ("cosine") or stays ("constant").
    select:           False trains the black-box twin: the same classifier on whole images; method="blackbox" is the
                      same.
    method:           "p2p", or a method that it is compared with, "blackbox", "blackbox-pixel-mask", "real-x", "comet"
                      or "comet-inverse" (see `methods`).
    augment:          augmentation of a source's images; True for the published one (see `data.Loader`).
    seed:             seed of the weights, the order, the augmentation and the samples.
    certainty:        certainty of the predictions in validation, in (0, 1].
    validation_share: share of each class's images that is held out when `fit` gets no validation data, in (0, 1).
    eval_every:       epochs between validations; the last epoch is always validated.
    freeze_selector:  True trains P2P's classifier alone, through the masks of test time, each image's most likely
                      superpixels at a random threshold; the selector stays the one that `fit` starts from. A classifier
                      that was trained through samples has seen other masks than it is asked about, and this teaches it
                      those. The sparsity term, the samples and `selector_rate` then have no part.
    selector_rate:    the selector's learning rate as a multiple of `learning_rate`, above 0. A selector with random
                      weights beside a trained classifier learns faster with 5 or 10.
    accumulate:       parts that a batch is computed in, one after the other, which takes as many times less memory. The
                      gradients are the means over the parts; BatchNorm takes its statistics over each part.
    precision:        "float32"; or "bfloat16" for mixed precision: the networks compute in bfloat16, but for the heads
                      and what is summed; parameters, optimizer and losses stay float32. It pays on accelerators.
    ema:              decay per step, in (0, 1), of an average of the weights over the steps, which is then what is
                      validated and kept as the model; None without. The first steps decay faster: (1 + n) / (10 + n).
    goal_accuracy, goal_share: ends the training after the first validation with at least this accuracy and at most this
                      share of the pixels, each in (0, 1]; None for no such condition. `certainty` decides at which
                      certainty. Without both, all epochs are trained.
    save_every:       steps between checkpoints; None for an epoch. It does not change what a run computes.
    log_every:        steps between the lines of `curves.jsonl`. It does not change what a run computes.
    """

    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    select: bool = True
    method: Method = "p2p"
    augment: bool | Augmentation = True
    seed: int = 0
    certainty: float = 0.95
    validation_share: float = 0.1
    eval_every: int = 1
    freeze_selector: bool = False
    selector_rate: float = 1.0
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    ema: float | None = None
    goal_accuracy: float | None = None
    goal_share: float | None = None
    save_every: int | None = None
    log_every: int = 50

    def __post_init__(self):
        super().__post_init__()
        if self.method not in METHODS:
            raise InputError(f"expected a method of {', '.join(METHODS)}; got {self.method!r}")
        if not self.select and self.method not in ("p2p", "blackbox"):
            raise InputError(f"select=False is the method blackbox; it is given with {self.method!r}: leave one out")
        if not self.select or self.method == "blackbox":
            object.__setattr__(self, "select", False)
            object.__setattr__(self, "method", "blackbox")
        if self.freeze_selector and (self.method != "p2p" or self.whole_epochs):
            raise InputError(
                "freeze_selector=True trains P2P's classifier through its selector's masks: it needs method=\"p2p\" "
                f"and whole_epochs=0; got {self.method!r} and {self.whole_epochs}"
            )
        if self.teacher_weight and self.method != "p2p":
            raise InputError(
                f'teacher_weight is about what P2P\'s classifier learns: it needs method="p2p"; got {self.method!r}'
            )
        for name in ("learning_rate", "selector_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0 and finite; got {getattr(self, name)}")
        for name, least in {"batch_size": 1, "eval_every": 1, "save_every": 1, "log_every": 1, "seed": 0}.items():
            value = getattr(self, name)
            if value is None and name == "save_every":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}")
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32; got {self.seed}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be at least 0 and finite; got {self.weight_decay}")
        if self.schedule not in ("cosine", "constant"):
            raise InputError(f'expected a schedule of "cosine" or "constant"; got {self.schedule!r}')
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is a share of the steps, in [0, 1); got {self.warmup}")
        if not 0 < self.certainty <= 1:
            raise InputError(f"certainty must lie in (0, 1]; got {self.certainty}")
        if not 0 < self.validation_share < 1:
            raise InputError(f"validation_share must lie in (0, 1); got {self.validation_share}")
        if not isinstance(self.accumulate, int) or self.accumulate < 1 or self.batch_size % self.accumulate:
            raise InputError(
                f"accumulate must be a whole number that divides the batch_size {self.batch_size}; got "
                f"{self.accumulate!r}"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f'expected a precision of "float32" or "bfloat16"; got {self.precision!r}')
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"ema is a decay in (0, 1), such as 0.999; got {self.ema!r}")
        for name in ("goal_accuracy", "goal_share"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} must lie in (0, 1]; got {value!r}")

    @property
    def objective(self) -> Objective:
        """What a step minimises, alone: runs that differ in the other settings share one compiled step."""
        return Objective(**{name: getattr(self, name) for name in _OBJECTIVE})

    @property
    def has_goal(self) -> bool:
        """Whether a validation can end the training."""
        return self.goal_accuracy is not None or self.goal_share is not None

    def met(self, validation: Mapping[str, float]) -> bool:
        """Whether a validation (its `accuracy` and `hard_share`) reaches the goal."""
        enough = self.goal_accuracy is None or validation["accuracy"] >= self.goal_accuracy
        return self.has_goal and enough and (self.goal_share is None or validation["hard_share"] <= self.goal_share)

    def to_record(self) -> dict[str, Any]:
        """The settings that decide what a run computes, as JSON can hold them.

        A setting that came later is left out where it has its default, so that runs from before it can go on.
        """
        fields = dataclasses.asdict(self) | {"augment": repr(self.augment)}
        default = TrainConfig()
        later = {name for name in _LATER if fields[name] == getattr(default, name)}
        later |= {"method"} if self.method == "blackbox" else set()  # `select` says it
        return {name: value for name, value in fields.items() if name not in later | {"save_every", "log_every"}}


_LATER = (
    "growth", "method", "freeze_selector", "selector_rate", "accumulate", "precision", "ema", "goal_accuracy",
    "goal_share", "teacher_weight", "teacher_temperature",
)  # fmt: skip
_OBJECTIVE = tuple(field.name for field in dataclasses.fields(Objective))
OBJECTIVE = tuple(name for name in _OBJECTIVE if name not in _LATER)  # these were once fields of `Config`
_KEYWORDS = tuple(  # and these of `fit`
    f.name for f in dataclasses.fields(TrainConfig) if f.name not in {*_OBJECTIVE, *_LATER, "log_every"}
)


def warn_moved(call: str, names: Iterable[str], *, stacklevel: int) -> None:
    """The one warning for settings that are now in `TrainConfig`. stacklevel: as if the caller called `warn`."""
    typed = ", ".join(f"{name}=..." for name in names)
    message = f"{call}({typed}) is deprecated; what trains is now set in p2p.fit(train=p2p.TrainConfig({typed}))"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)


def with_moved(
    train: TrainConfig | None, carried: Mapping[str, Any], keywords: Mapping[str, Any], *, stacklevel: int
) -> TrainConfig:
    """`train` with the settings that came in the old ways: inside a `Config`, and as keywords of `fit`.

    Raises TypeError for a keyword that `fit` never had, and ValueError for a setting that is given twice and differs.
    """
    for name in keywords:
        if name not in _KEYWORDS:
            hint = "; it is a setting of p2p.TrainConfig" if hasattr(TrainConfig, name) else ""
            raise TypeError(f"fit() got an unexpected keyword argument {name!r}{hint}")
    if keywords:
        warn_moved("p2p.fit", keywords, stacklevel=stacklevel + 1)
    moved = {**carried, **keywords}
    if train is not None:
        default = TrainConfig()
        for name, value in moved.items():
            if getattr(train, name) not in (getattr(default, name), value):
                raise InputError(
                    f"{name} is given twice, as {value!r} in the old way and as {getattr(train, name)!r} in the "
                    "TrainConfig; give it in the TrainConfig alone"
                )
    return dataclasses.replace(train or TrainConfig(), **moved)
