"""The work of `jaxmoxi explain` between its options and its files: it checks the inputs, then searches."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmoxi.cli.report import ABOVE, TOP, percent
from jaxmoxi.cli.shared import CommandError, load_model, one_line
from jaxmoxi.errors import NaNValueError, warn
from jaxmoxi.escape import printable, shorten
from jaxmoxi.files import PhotoWarning, read_image
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.payoff import class_probabilities
from jaxmoxi.games.removal import image_game
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.preprocess import normalize
from jaxmoxi.photos.convert import converted
from jaxmoxi.plot.strokes import short
from jaxmoxi.regions.label_maps import count_regions
from jaxmoxi.regions.spec import RegionSpec, parse_regions
from jaxmoxi.types import AnyArray, GreedyInfo, GreedyResult, Stop

if TYPE_CHECKING:
    from PIL import Image

    from jaxmoxi.cli.names import Identity
    from jaxmoxi.cli.options import PhotoOptions


class Task(NamedTuple):
    """Everything that a search needs and that a report says.

    stem:    what the files are called.
    photo:   uint8[H, W, 3], as the model sees it; image: the same normalised, float32[H, W, 3].
    target:  the class explained; top: the class that the model sees in the whole photo.
    whole:   float64[K], the model's probabilities for the whole photo.
    regions: int32[H, W], made as `spec` says.
    fill:    what hidden pixels become; None where tokens are removed.
    game:    makes the same game of another class; `v` is that of the target.
    mesh:    the devices that coalitions are spread over; None for one device.
    """

    stem: str
    model: Classifier
    photo: np.ndarray
    image: AnyArray
    target: int
    top: int
    whole: np.ndarray
    regions: Any
    spec: RegionSpec
    num_players: int
    masking: str
    fill: float | str | None
    v: ValueFn
    stop: Stop
    game: Callable[[int], ValueFn]
    mesh: Mesh | None

    @property
    def place(self) -> str:
        """What a class is that leads."""
        return ABOVE if self.model.link == "sigmoid" else TOP

    def name(self, index: int) -> str:
        """The first name of a class, for print: 60 characters at most."""
        return shorten(short(self.model.class_names[index]), 60)


def prepare(options: PhotoOptions, mesh: Mesh | None = None) -> Task:
    """The task that the options ask for. Mistakes in the inputs show here, before the long part.

    mesh: the devices to spread coalitions over; None for one device.

    Its stop is that of a whole order; `with_goal` gives it another.
    """
    import jaxmoxi as jm

    if options.batch_size is not None and options.batch_size < 1:
        raise CommandError(f"--batch-size: expected a number of at least 1; got {options.batch_size}")
    with one_line("--regions: "):
        asked = None if options.regions is None else parse_regions(options.regions)
    fill = parse_fill(options.fill)
    with one_line():
        if options.photo is not None:
            read_image(options.photo, lambda image: None, load=False)  # a mistake shows before a model is loaded
        named = (options.model, options.preprocessing, options.image_size)
        model = load_model(*named, hub=options.hub, quiet=options.quiet)
        model = model.astype(options.dtype)
        photo = _crop(options.photo, model)
        image = jnp.asarray(normalize(photo, model.preprocessing))
    whole = _probabilities(model, image)
    top = int(whole.argmax())
    with one_line("--target: "):
        target = top if options.target is None else model.find_class(options.target)

    grid = model.token_grid
    masking = options.masking or ("tokens" if grid else "pixels")
    if masking == "tokens" and not grid:
        raise CommandError(
            f"--masking tokens needs a vision transformer; {model.name} has no tokens: use --masking pixels"
        )
    rows, cols = grid if grid and masking == "tokens" else (7, 7)
    usual = RegionSpec(rows, cols, rows * cols)
    spec = asked or usual
    with one_line("--regions: "):
        regions = spec.label_map(photo)
    num_players = count_regions(regions)
    if masking == "tokens" and options.fill is not None:
        raise CommandError(
            "--fill is what hidden pixels become; tokens are removed: use --masking pixels, or no --fill"
        )
    with one_line():
        tokens = masking == "tokens"
        own = None if tokens and spec == usual else regions  # where each token is a player, no map is needed

        def game(index: int) -> ValueFn:
            removal = "tokens" if tokens else fill
            v = image_game(model, image, index, own, removal=removal, payoff=options.payoff)
            return v if mesh is None else jm.shard_coalitions(v, mesh)

        v = game(target)
    stem = "chelsea" if options.photo is None else options.photo.stem
    hidden = None if masking == "tokens" else fill
    return Task(
        stem, model, photo, image, target, top, whole, regions, spec, num_players, masking, hidden, v, Stop(), game,
        mesh,
    )  # fmt: skip


def with_goal(task: Task, method: str, until: str | None) -> Task:
    """The task of a search that stops as `--until` says. Raises CommandError for what the method cannot have."""
    stop = parse_until(until, task.num_players)
    check_goal(method, stop)
    return task._replace(stop=stop)


def caption_of(options: PhotoOptions, task: Task, *what: str, hidden: str | None = None) -> str:
    """The settings and the credit, for the line below a picture.

    what: more of them, such as the method. hidden: how regions are hidden, where the task does not say it.
    """
    if hidden is None:
        fill = task.fill if isinstance(task.fill, str) else f"{task.fill or 0:g}"
        hidden = "tokens removed" if task.masking == "tokens" else f"pixels filled with {fill}"
    settings = [task.model.name, *what, f"hidden: {hidden}", f"payoff {options.payoff}", str(task.spec)]
    credit = options.credit or ("photo: Stéfan van der Walt, CC0" if options.photo is None else None)
    return "  ·  ".join(shorten(printable(text), 80) for text in [*settings, *([credit] if credit else [])])


def record_of(options: PhotoOptions, task: Task, photo: Identity) -> dict[str, Any]:
    """What was asked of which photo and model, for the JSON file."""
    names = task.model.class_names
    return {
        "photo": None if options.photo is None else str(options.photo),
        **photo.record(),
        "model": task.model.name,
        "target": {"index": task.target, "name": names[task.target]},
        "target_probability": task.whole[task.target],
        "prediction": {"index": task.top, "name": names[task.top], "probability": task.whole[task.top]},
        "masking": task.masking,
        "fill": task.fill,
        "regions": str(task.spec),
        "num_regions": task.num_players,
        "payoff": options.payoff,
        "link": task.model.link,
        "dtype": options.dtype,
    }


def _crop(path: Path | None, model: Classifier) -> np.ndarray:
    """What the model sees of the photo, uint8[H, W, 3]; for None of the one that comes with scikit-image.

    The photo is resized as it is read, so that of a large one there is no second copy.
    """
    if path is None:
        from skimage import data

        return model.crop(data.chelsea())

    def crop(image: Image.Image) -> np.ndarray:
        rgb, notes = converted(image)
        for note in notes:
            warn(f"{printable(str(path))}: {note}", PhotoWarning)
        return model.crop(rgb)

    return read_image(path, crop)


def _probabilities(model: Classifier, image: AnyArray) -> np.ndarray:
    """The model's probabilities for the whole photo, float64[K]."""
    logits = jax.jit(type(model).logits)(model, image[None])
    if not np.isfinite(logits).all():
        raise CommandError(f"{model.name} returns NaN or infinity for the whole photo; its weights are damaged")
    return np.asarray(class_probabilities(logits, model.link), np.float64)[0]


def parse_until(text: str | None, num_players: int) -> Stop:
    """The `Stop` that `--until` means."""
    text = text or "class"
    if text == "class":
        return Stop(flip=True)
    if text == "all":
        return Stop()
    if text.isdecimal() and 1 <= int(text) <= num_players:
        return Stop(size=int(text))
    if re.fullmatch(r"0?\.\d+", text) and 0 < float(text) < 1:
        return Stop(probability=float(text))
    raise CommandError(
        f"--until: expected class, all, a number of regions from 1 to {num_players}, or a probability between 0 and 1 "
        f"such as 0.9; got {text!r}"
    )


def check_goal(method: str, stop: Stop) -> None:
    """Raises CommandError for an `--until` that the search for a smallest group cannot have."""
    sizeless = stop.size is not None and method in ("minimal", "robust")
    if sizeless or (method in ("minimal", "beam", "robust") and stop == Stop()):
        sizes = ", or a number of regions, whose best groups are then looked for" if method == "beam" else ""
        raise CommandError(
            f"--until: --method {method} looks for the smallest group itself; give class, or a probability such as 0.9"
            f"{sizes}"
        )


def parse_fill(text: str | None) -> float | str:
    """The `fill` of `pixel_value_fn` that `--fill` means."""
    if text in ("mean", "blur"):
        return text
    try:
        number = float(text or 0)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise CommandError(f"--fill: expected a number, mean or blur; got {text!r}")
    return number


def search(task: Task, method: str, *, batch_size: int | None, bar: bool) -> tuple[GreedyResult, BaseException | None]:
    """The search under its progress bar: the result, and the error that ended it early, if one did.

    After an error, the result holds the steps that were taken before it.
    """
    from tqdm import tqdm

    import jaxmoxi as jm

    find = jm.greedy_insertion if method == "insertion" else jm.greedy_deletion
    total = int(task.stop.size or task.num_players)
    steps: list[GreedyInfo] = []
    disable = None if bar else True  # None: shown on a terminal only
    with tqdm(total=total, desc=method, unit="region", leave=False, disable=disable) as shown:

        def follow(info: GreedyInfo) -> None:
            steps.append(jax.device_get(info))
            shown.set_postfix_str(f"{task.name(task.target)}: {percent(steps[-1].probability)}", refresh=False)
            shown.update()

        try:
            v, players = task.v, task.num_players
            return find(v, players, stop=task.stop, batch_size=batch_size, callback=follow), None
        except NaNValueError as error:
            return error.result, CommandError(str(error))
        except MemoryError as error:
            return _unfinished(steps, task, method), CommandError(str(error).replace("batch_size=", "--batch-size "))
        except KeyboardInterrupt as error:
            return _unfinished(steps, task, method), error


def _unfinished(steps: list[GreedyInfo], task: Task, method: str) -> GreedyResult:
    """The result of the steps that were taken. The readout of the start is lost with the search."""
    count, players = len(steps), task.num_players

    def row(name: str, blank: Any, dtype: Any) -> jax.Array:
        return jnp.full(players, blank, dtype).at[:count].set(jnp.asarray([getattr(s, name) for s in steps], dtype))

    return GreedyResult(
        order=row("player", -1, jnp.int32),
        values=row("value", jnp.nan, jnp.float32),
        num_steps=jnp.int32(count),
        start_value=jnp.float32(jnp.nan),
        num_evaluations=jnp.int32(sum(players - k for k in range(count))),
        leads=row("leads", False, bool),
        probabilities=row("probability", jnp.nan, jnp.float32),
        start_leads=None,
        start_probability=None,
        nan_player=jnp.int32(-1),
        insertion=method == "insertion",
    )
