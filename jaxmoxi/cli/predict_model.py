"""The model of `jaxmoxi predict` and what is asked of it: the options checked, the checkpoint read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.errors import warn
from jaxmoxi.escape import printable, shorten
from jaxmoxi.regions.spec import RegionSpec, parse_regions

if TYPE_CHECKING:  # flax and its networks take seconds to import
    from jaxmoxi.cli.predict import Predict
    from jaxmoxi.p2p import P2P, Prediction

CERTAINTY = 0.99
Fields = dict[str, np.ndarray]  # of a prediction at one certainty, by name


class Loaded(NamedTuple):
    """A model, and what is asked of it.

    class_names: K names; numbers where the checkpoint has none.
    spec:        how superpixels are made.
    certainty:   None for a model of a fixed threshold.
    black_box:   whether the model was trained on whole images, without its selector.
    """

    model: P2P
    class_names: tuple[str, ...]
    spec: RegionSpec
    certainty: float | None
    black_box: bool


def check_options(options: Predict) -> RegionSpec | None:
    """What `--regions` asks for; None where it is left out. Raises CommandError for options that cannot be."""
    if options.certainty is not None and not 0 < options.certainty <= 1:
        raise CommandError(f"--certainty: expected a probability in (0, 1], such as 0.9; got {options.certainty}")
    if options.batch_size < 1:
        raise CommandError(f"--batch-size: expected a number of at least 1; got {options.batch_size}")
    with one_line("--regions: "):
        return None if options.regions is None else parse_regions(options.regions)


def class_names_of(options: Predict) -> tuple[str, ...]:
    """The names of the checkpoint's classes, by its record alone, which is read at once."""
    import json

    from jaxmoxi import p2p
    from jaxmoxi.p2p.arrays import local_folder
    from jaxmoxi.p2p.checkpoint import read_record

    with one_line("--checkpoint: "):
        names = p2p.load_class_names(options.checkpoint)
        if names is None:
            config = p2p.Config.from_json(json.dumps(read_record(local_folder(options.checkpoint))["config"]))
            names = numbered(config.num_classes)
    return names


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes that have none."""
    return tuple(f"class {i}" for i in range(count))


def load_checkpoint(options: Predict, asked: RegionSpec | None) -> Loaded:
    """The model, which fits what is asked of it. Warns of a black box. Raises CommandError for what does not fit."""
    from jaxmoxi import p2p
    from jaxmoxi.p2p.arrays import local_folder
    from jaxmoxi.p2p.checkpoint import read_record

    with one_line("--checkpoint: "):
        model = p2p.load(options.checkpoint)
        names = p2p.load_class_names(options.checkpoint)
        train = read_record(local_folder(options.checkpoint)).get("train") or {}
    config = model.config
    if config.masking != "groups":
        raise CommandError(
            f"--checkpoint: the model of {options.checkpoint} masks single pixels and keeps no superpixels; expected "
            "one of the method p2p or real-x. `jaxmoxi train` judges it, in its run's evaluation.json"
        )
    if options.certainty is not None and not config.dynamic_threshold:
        raise CommandError(
            f"--certainty: the model of {options.checkpoint} has a fixed threshold ({config.threshold:g}) and does not "
            "search for one: leave the option out"
        )
    limit = config.num_groups
    spec = asked or parse_regions(f"slic:{limit}")
    if spec.count > limit:
        raise CommandError(f"--regions {spec}: the model knows at most {limit} regions; ask for no more")
    black_box = isinstance(train, dict) and train.get("select") is False
    if black_box:
        warn(
            f"{options.checkpoint} is a black box, trained on whole images: its selector learned nothing, so what is "
            "kept is arbitrary, and the classifier never learned from parts of an image"
        )
    certainty = (options.certainty or CERTAINTY) if config.dynamic_threshold else None
    return Loaded(model, names or numbered(config.num_classes), spec, certainty, black_box)


def is_certain(chance: float, certainty: float | None) -> bool | None:
    """Whether the certainty was reached, to the rounding of a probability; None for a fixed threshold."""
    return None if certainty is None else bool(chance >= certainty - 1e-6)


def caption_of(options: Predict, loaded: Loaded) -> str:
    """The settings, for the line below a picture."""
    caption = [shorten(printable(str(options.checkpoint)), 80), str(loaded.spec)]
    if loaded.certainty is not None:
        caption.append(f"certainty {loaded.certainty:g}")
    return "  ·  ".join(caption)


def on_host(found: Prediction) -> Fields:
    """The fields of a prediction as NumPy arrays, from which rows are taken without a program of their own."""
    return {name: np.asarray(getattr(found, name)) for name in found.__dataclass_fields__}


def pick(found: Fields, row: int) -> Fields:
    """One image's row of each field, as a batch of one. A copy, so that the others can be forgotten."""
    return {name: x[row : row + 1].copy() for name, x in found.items()}


def join(parts: Sequence[Fields]) -> Prediction:
    """The prediction of several images of one model."""
    import jax.numpy as jnp

    from jaxmoxi.p2p import Prediction

    return Prediction(**{name: jnp.asarray(np.concatenate([part[name] for part in parts])) for name in parts[0]})
