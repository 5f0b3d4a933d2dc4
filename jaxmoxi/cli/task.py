"""The work of `jaxmoxi explain` between options and files: check the inputs, then search under a progress bar."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmoxi.cli.report import percent
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.errors import InputError
from jaxmoxi.plot.strokes import short


class Task(NamedTuple):
    """Everything a search needs and a report says. `whole` float[K]: the model's probabilities for the whole photo."""

    stem: str
    model: Any
    photo: np.ndarray
    target: int
    top: int
    whole: np.ndarray
    regions: Any
    spec: str
    num_players: int
    masking: str
    fill: Any
    v: Any
    stop: Any

    def name(self, index: int) -> str:
        return short(self.model.class_names[index])


def prepare(options: Any, mesh: Any = None) -> Task:
    """The task that the options ask for, checked: what is wrong with an input shows here, before the long part.

    mesh: the devices to spread coalitions over; None for one device.
    """
    import jax

    import jaxmoxi as jm

    if options.batch_size is not None and options.batch_size < 1:
        raise CommandError(f"--batch-size: expected a number of at least 1; got {options.batch_size}")
    picture = load_photo(options.photo)
    with one_line():
        model: Any = jm.models.demo() if options.model is None else jm.models.load(options.model)
        model = model.astype(options.dtype)
        photo, image = model.crop(picture), model.preprocess(picture)
    logits = np.asarray(jax.jit(type(model).logits)(model, image[None]), np.float64)[0]
    if not np.isfinite(logits).all():
        raise CommandError(f"{model.name} returns NaN or infinity for the whole photo; its weights are damaged")
    whole = np.exp(logits - logits.max())
    whole /= whole.sum()
    top = int(logits.argmax())
    with one_line("--target: "):
        target = top if options.target is None else model.find_class(options.target)

    grid = model.token_grid
    masking = options.masking or ("tokens" if grid else "pixels")
    if masking == "tokens" and not grid:
        raise CommandError(
            f"--masking tokens needs a vision transformer; {model.name} has no tokens: use --masking pixels"
        )
    rows, cols = grid if grid and masking == "tokens" else (7, 7)
    spec = options.regions or f"grid:{rows}x{cols}"
    regions = make_regions(spec, photo)
    num_players = jm.count_regions(regions)
    stop = parse_until(options.until, num_players)
    if masking == "tokens":
        if options.fill is not None:
            raise CommandError(
                "--fill is what hidden pixels become; tokens are removed: use --masking pixels, or no --fill"
            )
        fill = None
        with one_line():
            own = None if spec == f"grid:{rows}x{cols}" else regions  # each token a player: no map needed
            v = jm.token_value_fn(model, image, target, own, payoff=options.payoff)
    else:
        fill = parse_fill(options.fill)
        with one_line():
            v = jm.pixel_value_fn(model.logits, image, target, regions, fill=fill, payoff=options.payoff)
    if mesh is not None:
        v = jm.shard_coalitions(v, mesh)
    stem = "chelsea" if options.photo is None else options.photo.stem
    return Task(stem, model, photo, target, top, whole, regions, spec, num_players, masking, fill, v, stop)


def load_photo(path: Path | None) -> Any:
    """The photo as a PIL image; the bundled one for None."""
    from PIL import Image, UnidentifiedImageError

    if path is None:
        from skimage import data

        return Image.fromarray(data.chelsea())
    if not path.is_file():
        what = "is a folder, not a photo" if path.is_dir() else "does not exist"
        raise CommandError(f"{path} {what}; expected an image file")
    try:
        picture = Image.open(path)
        picture.load()  # the pixels, all of them: what is cut short shows here
        return picture
    except UnidentifiedImageError:
        raise CommandError(f"{path} is not an image that can be read; expected a JPEG, PNG, WebP or similar") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path} cannot be read as an image ({error}); is it complete?") from None


def make_regions(spec: str, photo: np.ndarray) -> Any:
    """The label map that `grid:RxC` or `slic:N` means on this photo."""
    import jaxmoxi as jm

    with one_line(f"--regions {spec}: "):
        if found := re.fullmatch(r"grid:(\d+)x(\d+)", spec):
            return jm.grid_regions(*photo.shape[:2], rows=int(found[1]), cols=int(found[2]))
        if found := re.fullmatch(r"slic:(\d+)", spec):
            return jm.slic_regions(photo, num_segments=int(found[1]))
        raise InputError("expected grid:ROWSxCOLUMNS or slic:COUNT, such as grid:14x14 or slic:60")


def parse_until(text: str, num_players: int) -> Any:
    """The `Stop` that `--until` means."""
    import jaxmoxi as jm

    if text == "class":
        return jm.Stop(flip=True)
    if text == "all":
        return jm.Stop()
    if text.isdecimal() and 1 <= int(text) <= num_players:
        return jm.Stop(size=int(text))
    if re.fullmatch(r"0?\.\d+", text) and 0 < float(text) < 1:
        return jm.Stop(probability=float(text))
    raise CommandError(
        f"--until: expected class, all, a number of regions from 1 to {num_players}, or a probability between 0 and 1 "
        f"such as 0.9; got {text!r}"
    )


def parse_fill(text: str | None) -> Any:
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


def search(task: Task, method: str, *, batch_size: int | None, bar: bool) -> tuple[Any, BaseException | None]:
    """The search under its progress bar: the result, and what ended it early (with what was found until then)."""
    import jax
    from tqdm import tqdm

    import jaxmoxi as jm

    find = jm.greedy_insertion if method == "insertion" else jm.greedy_deletion
    total = task.stop.size or task.num_players
    steps: list[Any] = []
    disable = None if bar else True  # None: shown on a terminal only
    with tqdm(total=total, desc=method, unit="region", leave=False, disable=disable) as shown:

        def follow(info: Any) -> None:
            steps.append(jax.device_get(info))
            shown.set_postfix_str(f"{task.name(task.target)}: {percent(steps[-1].probability)}", refresh=False)
            shown.update()

        try:
            v, players = task.v, task.num_players
            return find(v, players, stop=task.stop, batch_size=batch_size, callback=follow), None
        except jm.NaNValueError as error:
            return error.result, CommandError(str(error))
        except MemoryError as error:
            return _unfinished(steps, task, method), CommandError(str(error).replace("batch_size=", "--batch-size "))
        except KeyboardInterrupt as error:
            return _unfinished(steps, task, method), error


def _unfinished(steps: list[Any], task: Task, method: str) -> Any:
    """The result of the steps that were taken. The start's readout went down with the search."""
    import jax.numpy as jnp

    import jaxmoxi as jm

    count, players = len(steps), task.num_players

    def row(name: str, blank: Any, dtype: Any) -> Any:
        return jnp.full(players, blank, dtype).at[:count].set(jnp.asarray([getattr(s, name) for s in steps], dtype))

    return jm.GreedyResult(
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
