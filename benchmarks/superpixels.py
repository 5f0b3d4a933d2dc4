"""Are the superpixels made on the device as good as scikit-image's, and how much faster?

    python benchmarks/superpixels.py [--images FOLDER] [--out FILE.json] [--picture FILE.png]

Quality, for several numbers of segments and compactnesses, on a folder of photos or on scikit-image's own:
- the number of regions, and whether each is connected; the share of the colours' variance that is between regions;
  compactness (4 pi area / perimeter², weighted by area);
- boundary recall (the borders of a reference that are found within 2 pixels) and under-segmentation error (Neubert and
  Protzel: where a reference's region cuts one, the lesser part, summed over the image), the reference being the other
  partition; a Felzenszwalb segmentation, which takes neither's side; and the object of made-up scenes, where the truth
  is known.

Speed: one image of a batch, in turns with scikit-image, on one device and on all of the process (`jaxmoxi.local_mesh`).
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from _common import environment, seconds, summary, write
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb, slic

import jaxmoxi as jm


@dataclasses.dataclass
class Args:
    images: Path | None = None
    """A folder of photos; without, the colour photos that come with scikit-image."""
    size: int = 224
    """Pixels of a side: photos are scaled and cut to a square."""
    most: int = 100
    """Photos to judge the quality by."""
    scenes: int = 64
    """Made-up scenes to judge it by."""
    settings: tuple[tuple[int, float], ...] = ((100, 20.0), (50, 20.0), (200, 10.0))
    """(number of segments, compactness) for the quality; the speed is that of the first."""
    batch: int = 32
    repeats: int = 7
    out: Path | None = None
    picture: Path | None = None
    """Where to draw a few photos with the borders of both."""


def load(args: Args) -> np.ndarray:
    """Photos, uint8[N, S, S, 3]."""
    if args.images is None:
        pictures = [Image.fromarray(photo()) for photo in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    else:
        kinds = {".png", ".jpg", ".jpeg", ".webp"}
        files = sorted(f for f in args.images.iterdir() if f.suffix.lower() in kinds)
        pictures = [Image.open(f).convert("RGB") for f in files[: args.most]]
    return np.stack([_square(picture, args.size) for picture in pictures])


def _square(picture: Image.Image, size: int) -> np.ndarray:
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))


def by_scikit_image(photo: np.ndarray, num_segments: int, compactness: float) -> np.ndarray:
    return slic(photo, n_segments=num_segments, compactness=compactness, start_label=0)


def by_jaxmoxi(photos: np.ndarray, num_segments: int, compactness: float) -> np.ndarray:
    return np.asarray(jm.slic_regions(photos, num_segments=num_segments, compactness=compactness))


def alone(labels: np.ndarray, lab: np.ndarray) -> dict[str, float]:
    """What a partition is like by itself."""
    flat, sizes = labels.ravel(), np.bincount(labels.ravel())
    means = np.stack([np.bincount(flat, lab[..., i].ravel()) / sizes for i in range(3)], -1)
    centre = lab.mean((0, 1))
    between, total = ((means[labels] - centre) ** 2).sum(), ((lab - centre) ** 2).sum()
    padded = np.pad(labels, 1, constant_values=-1)
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    perimeter = np.sum([np.bincount(flat, (side != labels).ravel(), len(sizes)) for side in sides], axis=0)
    components: Any = ndimage.label
    parts = [components(labels == label)[1] for label in range(len(sizes))]
    return {
        "regions": len(sizes),
        "explained_variance": float(between / total) if total else 1.0,
        "compactness": float((sizes * 4 * np.pi * sizes / perimeter**2).sum() / labels.size),
        "unconnected": float(np.sum(np.array(parts) != 1)),
    }


def against(labels: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How well a partition finds a reference's borders, and keeps within its regions."""
    borders, wanted = (np.asarray(jm.region_borders(x)) for x in (labels, reference))
    near = ndimage.binary_dilation(borders, np.ones((5, 5)))
    table = np.zeros((labels.max() + 1, reference.max() + 1), int)
    np.add.at(table, (labels.ravel(), reference.ravel()), 1)
    cut = np.minimum(table, table.sum(1, keepdims=True) - table)
    return {
        "boundary_recall": float((near & wanted).sum() / max(wanted.sum(), 1)),
        "undersegmentation": float(cut.sum() / labels.size),
    }


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def quality(
    photos: np.ndarray, neutral: list[np.ndarray], scenes: Any, num_segments: int, compactness: float
) -> dict[str, Any]:
    """Both partitions' figures, means over photos."""
    labs = [rgb2lab(photo) for photo in photos]
    segment = {
        "scikit-image": lambda x: np.stack([by_scikit_image(photo, num_segments, compactness) for photo in x]),
        "jaxmoxi": partial(by_jaxmoxi, num_segments=num_segments, compactness=compactness),
    }
    maps = {name: run(photos) for name, run in segment.items()}
    out: dict[str, Any] = {"segments": num_segments, "compactness": compactness}
    for (name, run), other in zip(segment.items(), reversed(maps.values()), strict=True):
        own = [alone(*pair) for pair in zip(maps[name], labs, strict=True)]
        in_scenes = zip(run(scenes.images), np.asarray(scenes.objects, int), strict=True)
        counts = [row["regions"] for row in own]
        out[name] = {
            **_mean(own),
            "fewest_regions": min(counts),
            "most_regions": max(counts),
            "against_the_other": _mean([against(*pair) for pair in zip(maps[name], other, strict=True)]),
            "against_felzenszwalb": _mean([against(*pair) for pair in zip(maps[name], neutral, strict=True)]),
            "against_objects": _mean([against(*pair) for pair in in_scenes]),
        }
    return out


def speed(photos: np.ndarray, mesh: Any, num_segments: int, compactness: float, args: Args) -> dict[str, Any]:
    """Seconds per image, in turns."""
    batch = np.resize(photos, (args.batch, *photos.shape[1:]))
    run = partial(jm.slic_regions, num_segments=num_segments, compactness=compactness)
    spec = jax.sharding.PartitionSpec(mesh.axis_names)
    spread = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec))
    runs = {
        "one device": lambda: run(batch),
        "all devices": lambda: spread(batch),
        "scikit-image": lambda: [by_scikit_image(photo, num_segments, compactness) for photo in batch],
    }
    first = {name: seconds(runs[name], repeats=1)[0] for name in ("one device", "all devices")}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, call in runs.items():
            times[name] += [t / args.batch for t in seconds(call, repeats=1)]
    ratios = {
        name: statistics.median(a / b for a, b in zip(times["scikit-image"], times[name], strict=True))
        for name in first
    }
    return {
        "batch": args.batch,
        "first_call": first,
        "seconds_per_image": {name: summary(t) for name, t in times.items()},
        "times_faster_than_scikit_image": ratios,
    }


def draw(photos: np.ndarray, num_segments: int, compactness: float, path: Path) -> None:
    """Photos with the borders of scikit-image's SLIC, of the device's, and of the watershed."""
    rows = []
    for photo in photos:
        maps = (
            by_scikit_image(photo, num_segments, compactness),
            by_jaxmoxi(photo, num_segments, compactness),
            np.asarray(jm.watershed_regions(photo, num_segments=num_segments)),
        )
        rows.append([np.where(np.asarray(jm.region_borders(labels))[..., None], 255, photo) for labels in maps])
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, picture in zip(line, row, strict=True):
            axis.imshow(picture.astype(np.uint8))
            axis.set_axis_off()
    for axis, name in zip(axes[0], ("SLIC, scikit-image", "SLIC, jaxmoxi", "watershed"), strict=True):
        axis.set_title(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(args: Args) -> None:
    mesh = jm.local_mesh()  # before anything is computed
    photos = load(args)
    start = time.perf_counter()
    result: dict[str, Any] = {"environment": environment(), "photos": len(photos), "size": args.size}
    result["speed"] = speed(photos, mesh, *args.settings[0], args)
    print(f"speed: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    made = jm.p2p.data.synthetic_scenes(jax.random.key(0), args.scenes, image_size=args.size)
    scenes = jax.tree.map(np.asarray, made)
    neutral = [felzenszwalb(photo, scale=300, sigma=0.8, min_size=200) for photo in photos]
    result["quality"] = [quality(photos, neutral, scenes, *setting) for setting in args.settings]
    if args.picture is not None:
        draw(load(dataclasses.replace(args, images=None))[:4], *args.settings[0], args.picture)
    write(result, args.out)


if __name__ == "__main__":
    main(tyro.cli(Args))
