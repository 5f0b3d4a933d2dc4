"""The options that commands which explain a photo have in common."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxmoxi.cli import shared as _command

_OPTION = tyro.conf.arg


@dataclasses.dataclass(frozen=True)
class PhotoOptions:
    """A photo, a model, the class that is explained, and how regions of the photo are hidden."""

    photo: Annotated[tyro.conf.Positional[Path | None], _OPTION(metavar="[PHOTO]", help_behavior_hint="")] = None
    """An image file, of at most 134 million pixels (or JAXMOXI_MAX_PIXELS in the environment). Left out: a photo of a
    cat that comes with scikit-image."""
    model: Annotated[Path | None, _OPTION(metavar="FOLDER|NAME", help_behavior_hint="")] = None
    """A checkpoint folder (config.json, model.safetensors), or a name of the Hugging Face hub such as
    google/vit-base-patch16-224. demo, or left out: EfficientNet-Lite0 of the `demo` extra."""
    preprocessing: Annotated[str | None, _OPTION(metavar="imagenet|half|clip|FILE", help_behavior_hint="")] = None
    """With --model: how a photo becomes the network's input, by name or as a preprocessor_config.json. Left out: as the
    folder says."""
    image_size: Annotated[str | None, _OPTION(metavar="SIDE|HEIGHTxWIDTH", help_behavior_hint="")] = None
    """With --model: pixels of the images that the network sees, where not its weights' own; position embeddings
    are interpolated. Left out: the weights' own."""
    target: Annotated[str | None, _OPTION(metavar="NAME|INDEX", help_behavior_hint="")] = None
    """The class to explain. Left out: the one the model sees in the photo."""
    regions: Annotated[str | None, _OPTION(metavar="grid:RxC|slic:N", help_behavior_hint="")] = None
    """The players: a grid, or about N superpixels. Left out: the model's tokens, or grid:7x7 when pixels are hidden."""
    masking: Annotated[Literal["tokens", "pixels"] | None, _OPTION(metavar="tokens|pixels", help_behavior_hint="")] = (
        None
    )
    """How a region is hidden: its tokens are removed (vision transformers), or its pixels filled. Left out: tokens
    where the model has them."""
    payoff: Literal["log_odds", "margin", "log_prob", "logit", "prob"] = "log_odds"
    """The quantity of the target class that the search drives up or down."""
    fill: Annotated[str | None, _OPTION(metavar="NUMBER|mean|blur", help_behavior_hint="")] = None
    """What hidden pixels become: a number (in the network's normalised units), the photo's mean colour or the photo
    blurred. Left out: 0."""
    batch_size: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Coalitions evaluated at once. Left out: what fits the memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The precision of the network. Payoffs are float32 always."""
    credit: Annotated[str | None, _OPTION(metavar="TEXT", help_behavior_hint="")] = None
    """The author and licence of the photo, for the line below the picture."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the answer alone, without a progress bar."""
    hub: tyro.conf.OmitArgPrefixes[_command.HubOptions] = _command.NO_HUB_OPTIONS
    out: Annotated[Path, _OPTION(metavar="DIR")] = Path("jaxmoxi-out")
    """The folder to write to. The files of the same photo and method are replaced; another photo of the same name gets
    a number."""
