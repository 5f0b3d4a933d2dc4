"""COCO-10, made from the images and annotations of MS COCO 2017.

    python -m jaxmoxi.p2p.data.make_coco10 --annotations instances_train2017.json --images train2017 --out coco10

Source: Vandenhirtz and Vogt, "From Pixels to Perception", ICML 2025, and the script in the authors' repository. Of ten
classes, it takes the images that show exactly one of the ten (and anything else); the mask is the union of all that
class's annotations, crowds included. Each class has 1000 images for training, left as they are, then 100 for testing.
A test image is resized to 256 pixels on the shorter side and cropped to the central 224 x 224. It is skipped if the
object covers less than 5 % or more than 95 % of that.

Deviations from the script:
- images are taken in the order of their numbers (there, in the order of a Python set);
- the ten classes are given (there, found among the thirty most frequent, with two exchanged by hand; the same list);
- an image that is missing or broken is an error (there, it is skipped);
- training images stay JPEG (there, PNG), and masks are PNG of one bit (there, .npy);
- a polygon covers the pixels whose centres lie in it (there, pycocotools rounds its edges; only the border differs).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.augment import centre_geometry, place_image, place_labels
from jaxmoxi.p2p.data.files import read_image
from jaxmoxi.photos.reading import open_image

COCO10_CLASSES = ("bed", "car", "cat", "clock", "dog", "person", "sink", "train", "tv", "vase")
ORIENTATION = 0x0112  # the EXIF tag


def build_coco10(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    train_per_class: int = 1000,
    val_per_class: int = 100,
    classes: Sequence[str] = COCO10_CLASSES,
    min_share: float = 0.05,
    max_share: float = 0.95,
    image_size: int = 224,
    progress: bool = True,
) -> dict[str, int]:
    """Writes `out/{train,val}/CLASS/` and the masks `out/mask/{train,val}/CLASS/`, for `COCO10` to read.

    annotations:  `instances_train2017.json`, or another file of its format.
    images:       the folder of its images.
    out:          a folder that does not exist yet, or is empty.
    train_per_class, val_per_class: number of images per class, at least 1.
    classes:      names of the classes, as the annotations have them.
    min_share, max_share: the smallest and largest share of a test image that its object may cover.
    image_size:   side of the test images, in pixels.
    progress:     shows a bar.

    Returns, by class, how many test images were skipped because of their object's share.
    Raises ValueError, before anything is written, for annotations that are not of this format, a class that is not in
    them or has too few images, or a folder that is not empty; and for an image that is missing or broken.
    """
    from tqdm import tqdm  # what needs no bar runs without the package

    images, out = Path(images), Path(out)
    if train_per_class < 1 or val_per_class < 1:
        raise InputError(f"expected at least one image per class and split; got {train_per_class} and {val_per_class}")
    if not images.is_dir():
        raise InputError(f"expected the folder of the images at {images}; there is none")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not an empty folder; name one that does not exist yet")
    chosen = _choose(Path(annotations), classes)
    needed = train_per_class + val_per_class
    for name, entries in chosen.items():
        if len(entries) < needed:
            raise InputError(
                f"expected {needed} images that show {name!r} and no other of the classes; {annotations} has "
                f"{len(entries)}: ask for fewer per class"
            )
    skipped = dict.fromkeys(classes, 0)
    with tqdm(total=needed * len(classes), disable=not progress, unit="image") as bar:
        for name, entries in chosen.items():
            taken = 0
            for image, segments in entries:
                if taken == needed:
                    break
                photo, mask = _read(images / image["file_name"], image, segments)
                if taken < train_per_class:
                    _write_train(out, name, photo, mask)
                elif not _write_val(out, name, photo, mask, image_size, (min_share, max_share)):
                    skipped[name] += 1
                    continue
                taken += 1
                bar.update()
            if taken < needed:
                raise InputError(
                    f"class {name!r} has {taken - train_per_class} test images whose object covers {min_share:.0%} to "
                    f"{max_share:.0%}, not {val_per_class}: ask for fewer per class; what is in {out} is incomplete"
                )
    return skipped


def segmentation_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels of a COCO segmentation: a list of polygons, or run lengths, compressed into a string or not.

    A polygon [x0, y0, x1, y1, ...] covers the pixels whose centres it holds, pixel (0, 0) having its own at
    (0.5, 0.5). Run lengths go down the columns and begin with the pixels outside.
    Raises ValueError for anything else, and for run lengths that do not add up to the size.
    """
    if isinstance(segmentation, Mapping):
        counts = segmentation.get("counts")
        counts = np.array(_decode(counts) if isinstance(counts, str) else counts)
        size = segmentation.get("size")
        if size != [height, width] or counts.ndim != 1 or counts.min() < 0 or counts.sum() != height * width:
            raise InputError(
                f"expected run lengths of {height} x {width} pixels that add up to {height * width}; got size {size}, "
                f"sum {counts.sum()}"
            )
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    from skimage.draw import polygon

    mask = np.zeros((height, width), bool)
    for corners in segmentation:
        if len(corners) < 6 or len(corners) % 2:
            raise InputError(f"expected polygons of at least three corners x, y; got {len(corners)} numbers")
        xy = np.reshape(np.asarray(corners, float), (-1, 2)) - 0.5
        mask[polygon(xy[:, 1], xy[:, 0], mask.shape)] = True
    return mask


def _decode(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths.

    A character minus 48 holds five bits of a number, the low ones first; its sixth bit says whether more follow. Bit 5
    of the last character is the sign. From the fourth number on, each is the difference to the number two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts


def _choose(path: Path, classes: Sequence[str]) -> dict[str, list[tuple[dict[str, Any], list[Any]]]]:
    """For each class, the images that show it and no other of the classes, with its segmentations, by image number."""
    try:
        content = json.loads(path.read_text())
        categories = {entry["name"]: entry["id"] for entry in content["categories"]}
        photos = {entry["id"]: entry for entry in content["images"]}
        shown = [(entry["image_id"], entry["category_id"], entry["segmentation"]) for entry in content["annotations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not an instances_*.json of MS COCO ({type(error).__name__}: {error})") from None
    missing = [name for name in classes if name not in categories]
    if missing:
        raise InputError(f"{path} has no category {missing[0]!r}; it has {', '.join(sorted(categories))}")
    names = {categories[name]: name for name in classes}
    segments: dict[int, dict[str, list[Any]]] = {}
    for image, category, segmentation in shown:
        if category in names:
            segments.setdefault(image, {}).setdefault(names[category], []).append(segmentation)
    chosen: dict[str, list[tuple[dict[str, Any], list[Any]]]] = {name: [] for name in classes}
    for number in sorted(segments):
        if len(segments[number]) == 1:
            ((name, own),) = segments[number].items()
            chosen[name].append((photos[number], own))
    return chosen


def _read(path: Path, entry: Mapping[str, Any], segments: Sequence[Any]) -> tuple[Path, np.ndarray]:
    """The image's path and its mask, which is upright, as the image will be when it is read."""
    height, width = entry["height"], entry["width"]
    try:
        with open_image(path.read_bytes()) as photo:
            size, turn = photo.size, photo.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, InputError) as error:
        raise InputError(f"the annotated image {path} cannot be read ({error})") from None
    if size != (width, height):
        raise InputError(f"{path} has {size[1]} x {size[0]} pixels; its annotations are for {height} x {width}")
    mask = np.zeros((height, width), bool)
    for segmentation in segments:
        mask |= segmentation_mask(segmentation, height, width)
    picture = Image.fromarray(mask)
    picture.getexif()[ORIENTATION] = turn  # the annotations are made before the rotation that EXIF asks for
    return path, np.array(ImageOps.exif_transpose(picture))


def _write_train(out: Path, name: str, photo: Path, mask: np.ndarray) -> None:
    read_image(photo)  # raises for a broken image
    folder = out / "train" / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo, folder / photo.name)
    _write_mask(out / "mask" / "train" / name / f"{photo.stem}.png", mask)


def _write_val(
    out: Path, name: str, photo: Path, mask: np.ndarray, image_size: int, shares: tuple[float, float]
) -> bool:
    """Writes a test image if its object's share is in range; returns whether it did."""
    geometry = centre_geometry(mask.shape, image_size)
    mask = place_labels(mask, geometry, image_size)
    if not shares[0] <= mask.mean() <= shares[1]:
        return False
    folder = out / "val" / name
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(place_image(read_image(photo), geometry, image_size)).save(folder / f"{photo.stem}.png")
    _write_mask(out / "mask" / "val" / name / f"{photo.stem}.png", mask)
    return True


def _write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
