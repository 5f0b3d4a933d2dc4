"""Several models, the same photos: how alike their explanations are, and what one model's order is worth to another.

Orders are compared from the shards alone. The curves of one model's order under another's game are evaluated once all
photos are measured, and kept in `across.npz`, with what they were made of.
Source: Sumiyasu, Kawamoto and Kera, CVPR 2024, section 5.4.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int
from PIL import Image

from jaxmoxi.errors import InputError, NaNValueError
from jaxmoxi.files import write_whole
from jaxmoxi.games.base import as_game
from jaxmoxi.metrics.registry import DIRECTIONS
from jaxmoxi.metrics.robustness import rank_correlation
from jaxmoxi.moxi.curves import area_under, curve_readouts, player_pixels, shares_along
from jaxmoxi.regions.spec import parse_regions
from jaxmoxi.study.measure import Setting, curve_game
from jaxmoxi.study.photos import UnreadableError, read_photo
from jaxmoxi.study.records import Measured
from jaxmoxi.study.store import Study

POINTS = 9  # sizes of a curve
TOPS = (0.1, 0.25)  # shares of the players that a top group has


class Transfer(NamedTuple):
    """The probability area of one model's order under another's game.

    photo:   its place in the study. order, game: the models' places. direction: 0 insertion, 1 deletion.
    method:  a name.
    area:    over the share of what the study's curves are over (`share`), in [0, 1].
    """

    photo: int
    order: int
    game: int
    direction: int
    method: str
    area: float


def measured_photos(study: Study) -> dict[int, dict[int, Measured]]:
    """What is measured of each photo under at least two models: photo -> model -> record, label maps left out."""
    found: dict[int, dict[int, Measured]] = {}
    for pair in study.shards:
        for result in study.read(pair):
            if result.measured is not None:
                bare = result.measured._replace(regions=np.zeros((0, 0), np.int32), lines=(), numbers=())
                found.setdefault(result.index, {})[pair[0]] = bare
    return {photo: found[photo] for photo in sorted(found) if len(found[photo]) > 1}


def same_players(a: Setting, b: Setting) -> bool:
    """Whether player i is the same part of a photo under both models.

    Of a grid it is the same place of what each model sees; of superpixels only where both see the same pixels.
    """
    return parse_regions(a.config.regions).rows is not None or geometry(a) == geometry(b)


def geometry(task: Setting) -> tuple[object, ...]:
    """What decides which part of a photo a model sees, and at what size."""
    p = task.model.preprocessing
    return p.resize, p.crop, p.resample, p.crop_rounding, p.fit


class Agreement(NamedTuple):
    """How alike two models' orders of one photo are, by one method: means over insertion and deletion.

    correlation: Spearman's, in [-1, 1]. overlaps: for each of `TOPS`, the first players' intersection over union.
    """

    correlation: float
    overlaps: tuple[float, ...]


def agreement(a: Int[np.ndarray, "2 P"], b: Int[np.ndarray, "2 P"]) -> Agreement:
    """How alike orders of the same players are, of insertion and of deletion."""
    ranks = [np.argsort(orders, axis=1).astype(np.float64) for orders in (a, b)]
    correlation = np.mean([rank_correlation(x, y) for x, y in zip(*ranks, strict=True)])
    overlaps = []
    for share in TOPS:
        count = top_count(share, a.shape[1])
        both = [len(np.intersect1d(x[:count], y[:count])) for x, y in zip(a, b, strict=True)]
        overlaps.append(float(np.mean([n / (2 * count - n) for n in both])))
    return Agreement(float(correlation), tuple(overlaps))


def top_count(share: float, num_players: int) -> int:
    """How many players the first share of them are: at least one, halves up."""
    return max(1, int(share * num_players + 0.5))


def common_methods(a: Measured, b: Measured) -> Iterator[tuple[str, Int[np.ndarray, "2 P"], Int[np.ndarray, "2 P"]]]:
    """Each method that explained both, with its orders for each."""
    for method in a.methods:
        if method in b.methods:
            yield method, a.orders[a.methods.index(method)], b.orders[b.methods.index(method)]


def measure_across(study: Study, photos: Mapping[int, Mapping[int, Measured]], in_time: Callable[[], bool]) -> bool:
    """Evaluates what is missing of `across.npz`, and returns whether nothing is. Raises OSError."""
    digests = {photo: _digest(study, photo, models) for photo, models in photos.items()}
    kept = _read(study.out)
    rows = {photo: kept[photo][1] for photo in photos if photo in kept and kept[photo][0] == digests[photo]}
    missing = [photo for photo in photos if photo not in rows]
    finished = True
    for photo in missing:
        if not in_time():
            finished = False
            break
        rows[photo] = _of_photo(study, photo, photos[photo])
    if missing or set(kept) - set(rows):
        _write(study.out, {photo: (digests[photo], rows[photo]) for photo in sorted(rows)})
    return finished


def transfers(study: Study, photos: Mapping[int, Mapping[int, Measured]]) -> dict[int, list[Transfer]]:
    """What `across.npz` holds of these photos as they are measured now."""
    kept = _read(study.out)
    return {p: kept[p][1] for p, models in photos.items() if p in kept and kept[p][0] == _digest(study, p, models)}


def contents_hash(out: epath.Path) -> str:
    """A hash of what `across.npz` holds; of nothing where it is missing or damaged."""
    return hashlib.sha256(repr(sorted(_read(out).items())).encode()).hexdigest()


def across_path(out: epath.Path) -> epath.Path:
    """Where the curves of one model's order under another's game are."""
    return out / "across.npz"


def _of_photo(study: Study, photo: int, models: Mapping[int, Measured]) -> list[Transfer]:
    """The areas of all orders of one photo under all its models' games; none where the photo can no longer be read."""
    try:
        picture = read_photo(study.folder / study.photos[photo].name)
    except (UnreadableError, OSError):
        return []
    rows: list[Transfer] = []
    for game in models:
        task = study.settings[game][1]
        of = [order for order in models if same_players(study.settings[order][1], task)]
        named = [(order, m, models[order].orders[i]) for order in of for i, m in enumerate(models[order].methods)]
        named = [(order, m, orders) for order, m, orders in named if m in models[game].methods]
        players = models[game].orders.shape[-1]
        named = [found for found in named if found[2].shape[-1] == players]
        try:
            areas = _areas(task, picture, models[game].target, np.stack([orders for *_, orders in named]))
        except (InputError, NaNValueError):  # the photo has its reason in the model's own section
            continue
        for (order, method, _), pair in zip(named, areas, strict=True):
            rows += [Transfer(photo, order, game, d, method, float(pair[d])) for d in (0, 1)]
    return rows


def _areas(
    task: Setting, picture: Image.Image, target: int, orders: Int[np.ndarray, "N 2 P"]
) -> Float[np.ndarray, "N 2"]:
    """The probability areas of orders under a model's own game, of insertion and of deletion."""
    v, players = curve_game(task, picture, target), orders.shape[-1]
    sizes = sorted({round(p * players) for p in np.linspace(0, 1, POINTS)})
    pixels = np.ones(players) if task.config.share == "players" else player_pixels(as_game(v), players, None)
    found = []
    for d, direction in enumerate(DIRECTIONS):
        out = curve_readouts(
            v, orders[:, d], insertion=direction == "insertion", sizes=sizes, batch_size=task.batch_size
        )
        chances = np.asarray(out.probabilities, np.float32)  # which every game of an image tells
        found.append(np.asarray(area_under(chances, shares_along(orders[:, d], pixels)[:, np.asarray(sizes)])))
    return np.stack(found, axis=1)


def _digest(study: Study, photo: int, models: Mapping[int, Measured]) -> str:
    """A hash of what the areas of a photo follow from."""
    share = study.settings[min(models)][1].config.share
    found = hashlib.sha256(f"{study.name} {photo} {share}".encode())
    for model, measured in sorted(models.items()):
        found.update(f"{model} {measured.target} {measured.methods}".encode())
        found.update(np.ascontiguousarray(measured.orders).tobytes())
    return found.hexdigest()


def _write(out: epath.Path, rows: Mapping[int, tuple[str, list[Transfer]]]) -> None:
    flat = list(itertools.chain.from_iterable(of for _, of in rows.values()))
    columns = list(zip(*flat, strict=True)) or [()] * len(Transfer._fields)
    types = (np.int32, np.int32, np.int32, np.int32, np.str_, np.float64)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        photos=np.asarray(list(rows), np.int32),
        digests=np.asarray([digest for digest, _ in rows.values()], np.str_),
        **{n: np.asarray(c, t) for n, c, t in zip(Transfer._fields, columns, types, strict=True)},  # type: ignore[arg-type]
    )
    write_whole(across_path(out), file.getvalue())


def _read(out: epath.Path) -> dict[int, tuple[str, list[Transfer]]]:
    """Photo -> (digest, rows); nothing where the file is missing or damaged: it is made anew."""
    try:
        with np.load(io.BytesIO(across_path(out).read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name].tolist() for name in (*Transfer._fields, "photos", "digests")}
        found: dict[int, tuple[str, list[Transfer]]] = {
            photo: (digest, []) for photo, digest in zip(arrays["photos"], arrays["digests"], strict=True)
        }
        for row in zip(*(arrays[name] for name in Transfer._fields), strict=True):
            found[row[0]][1].append(Transfer(*row))
    except Exception:  # a damaged file makes errors of many kinds
        return {}
    return found
