"""The photos of a study: which photos there are, what they show, and reading them whatever their condition.

Photos come from a folder of class folders, `root/CLASS/FILE` or `root/CLASS/.../FILE`, or from a table in CSV with the
columns `file` and `label` (or `index`). Objects are given by `x0, y0, x1, y1`, a box in pixels of the upright photo,
turned as its EXIF data say (several boxes of one photo are several rows), or by `mask`, an image of the photo's size
that is not black on the object. Pictures made from the photos name the columns `author` and `license`. These columns
are optional.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import Image, ImageOps

import jaxmoxi.files as files
from jaxmoxi.errors import InputError, warn
from jaxmoxi.files import PHOTO_SUFFIXES, PhotoWarning, UnreadableError
from jaxmoxi.photos.listing import describe_left_out, find_photos
from jaxmoxi.study.table import read_rows


class Photo(NamedTuple):
    """One photo of a study.

    name:  its path inside the folder, unique, with forward slashes.
    label: the class it shows, 0 .. K-1; -1 where it is not known.
    boxes: (x0, y0, x1, y1) of its objects, in pixels of the upright photo.
    credit: whose photo it is, for pictures made from it.
    mask:  the path of its objects' mask inside the folder, "" for none.
    """

    name: str
    label: int
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    credit: str = ""
    mask: str = ""


def as_text(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are spelt out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Found(NamedTuple):
    """The photos of a study, and (path, reason) of the files beside them that are not read as photos."""

    photos: list[Photo]
    left_out: list[tuple[str, str]]

    @property
    def told(self) -> str:
        """One line that says how many of how many files are read, and why the others are left out; "" for all."""
        return describe_left_out(len(self.photos), self.left_out)


def list_photos(root: epath.PathLike, class_names: Sequence[str], *, need_labels: bool = True) -> list[Photo]:
    """The photos of a folder, sorted by name, or of a CSV file, in its order.

    root:        a folder of class folders; a folder with `labels.csv` in it; or a `.csv` file, to which its `file`s are
                 relative. A class folder is called by its class's index or name (any synonym and case; `_` for
                 a space) or both (00_dog), or all K of them by WordNet identifiers (n01440764), whose order is then
                 that of the classes, as in ImageNet; photos that lie in the folder itself have no label. Photos in
                 folders inside a class folder belong to its class; a folder that is no class may hold class folders.
    class_names: of the model, K.
    need_labels: False gives photos in folders that name no class the label -1.

    Which files are photos is told by `jaxmoxi.photos.listing.find_photos`. Files that are left out are listed by a
    `PhotoWarning`; `find_listed` returns them.
    Raises ValueError where there is no photo, and for labels that are no class of the model.
    """
    found = find_listed(root, class_names, need_labels=need_labels)
    if found.left_out:
        warn(f"{as_text(str(root))}: {found.told}", PhotoWarning)
    return found.photos


def find_listed(root: epath.PathLike, class_names: Sequence[str], *, need_labels: bool = True) -> Found:
    """`list_photos` without its warning: the photos, and the files that are left out, with the reason of each."""
    root = epath.Path(root)
    if root.is_dir() and (root / "labels.csv").exists():
        root = root / "labels.csv"
    if root.suffix.lower() == ".csv":
        if not root.exists():
            raise InputError(f"expected a folder of photos or a CSV file; {root} does not exist")
        found = Found(_from_table(root, class_names), [])
    elif root.is_dir():
        found = _from_folders(root, class_names, need_labels)
    else:
        raise InputError(f"expected a folder of photos or a CSV file; {root} does not exist")
    if not found.photos:
        others = f" ({found.told})" if found.left_out else ""
        raise InputError(
            f"{root} holds no photo{others}; expected image files ({', '.join(PHOTO_SUFFIXES[:12])}, ...) in class "
            "folders, or labels.csv"
        )
    return found


def chosen_photos(photos: Sequence[Photo], count: int | None) -> list[Photo]:
    """So many of the photos, spread evenly over the list; None: all."""
    if count is None or count >= len(photos):
        return list(photos)
    places = np.linspace(0, len(photos) - 1, count).round().astype(int)
    return [photos[i] for i in sorted(set(places.tolist()))]


def photo_folder(root: epath.PathLike) -> epath.Path:
    """The folder to which the names of `list_photos` are relative."""
    root = epath.Path(root)
    return root.parent if root.suffix.lower() == ".csv" else root


def read_photo(path: epath.PathLike) -> Image.Image:
    """A photo as upright 8-bit RGB, as `jaxmoxi.files.read_photo` reads it. Warns and raises as it does."""
    return files.read_photo(epath.Path(path))


def read_mask(path: epath.PathLike, size: tuple[int, int]) -> Image.Image:
    """Where an image is not black and not transparent, as a white one on black. size: of its photo, (width, height).

    Raises UnreadableError, as `read_photo`, and for another size.
    """
    try:
        mask = files.read_image(epath.Path(path), _inside)
    except UnreadableError as error:
        raise UnreadableError(f"the mask {error}", f"its mask: {error.reason}") from None
    if mask.size != size:
        (width, height), got = size, mask.size
        reason = f"its mask: expected the size of the photo, {width} x {height} pixels; got {got[0]} x {got[1]}"
        raise UnreadableError(f"{path}: {reason}", reason)
    return mask


def _inside(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "1LIF" and image.mode != "LA" and "transparency" not in image.info:  # whatever its depth
        inside = np.asarray(image) != 0
    else:
        colours = np.asarray(image.convert("RGBA"))
        inside = colours[..., :3].any(-1) & (colours[..., 3] > 0)
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).convert("RGB")


def _from_folders(root: epath.Path, class_names: Sequence[str], need_labels: bool) -> Found:
    listing = find_photos(root)
    find = _class_finder(class_names)
    folders = sorted({name.split("/")[0] for name in listing.photos if "/" in name})
    there = sorted(p.name for p in root.iterdir() if re.fullmatch(r"n\d{8}", p.name) and p.is_dir())
    if there and set(folders) <= set(there):
        if len(there) != len(class_names):
            raise InputError(
                f"{root} has {len(there)} folders called by WordNet identifiers, the model {len(class_names)} "
                "classes; their order tells what they are when all are there: call them by class names or indices"
            )
        places = {name: i for i, name in enumerate(there)}
        return Found([Photo(name, places.get(name.split("/")[0], -1)) for name in listing.photos], listing.left_out)
    labels: dict[str, int] = {"": -1}
    for folder in sorted({posixpath.dirname(name) for name in listing.photos} - {""}):
        labels[folder] = _label(root, folder, find, need_labels)
    return Found([Photo(name, labels[posixpath.dirname(name)]) for name in listing.photos], listing.left_out)


def _label(root: epath.Path, folder: str, find: Callable[[str, str], int], need_labels: bool) -> int:
    """The class of a folder inside the root, by the outermost part of its path that is one; -1 for none."""
    parts, named = folder.split("/"), []
    for part in parts:
        try:
            named.append((part, find(part, f"the folder {root / folder}")))
        except InputError as error:
            if part == parts[-1] and not named:
                if need_labels:
                    raise InputError(str(error) if len(parts) == 1 else f"{error} (nor is any folder above)") from None
                return -1
    first, label = named[0]
    other = next(((p, n) for p, n in named[1:] if n != label and not p.strip().isdigit()), None)
    if first.strip().isdigit() and other is not None:
        raise InputError(
            f"the folder {root / folder} lies in {first!r}, the index of a class, and in {other[0]!r}, the name of "
            "another: give one class alone"
        )
    return label


def _from_table(path: epath.Path, class_names: Sequence[str]) -> list[Photo]:
    rows = read_rows(path)
    columns = set(rows[0]) if rows else set()
    column = next((name for name in ("label", "index") if name in columns), None)
    if "file" not in columns or column is None:
        raise InputError(
            f"expected the columns file and label (or index) in {path}; got {', '.join(sorted(map(str, columns)))}"
        )
    box = ("x0", "y0", "x1", "y1")
    if columns & set(box) and not set(box) <= columns:
        raise InputError(
            f"expected all of the columns x0, y0, x1, y1 in {path}, or none; got {', '.join(sorted(map(str, columns)))}"
        )
    find = _class_finder(class_names)
    photos: dict[str, Photo] = {}
    for number, row in enumerate(rows, 2):
        if not row["file"]:
            raise InputError(f"line {number} of {path}: expected a photo's path under file; got none")
        name = posixpath.normpath(row["file"])
        label = find(row[column], f"line {number} of {path}") if row[column] else -1
        boxes = ()
        if set(box) <= columns and any(row[corner] for corner in box):
            try:
                x0, y0, x1, y1 = (float(row[corner]) for corner in box)
            except (TypeError, ValueError):
                raise InputError(f"line {number} of {path}: expected numbers in x0, y0, x1, y1") from None
            if not (x0 <= x1 and y0 <= y1):
                raise InputError(
                    f"line {number} of {path}: expected x0 <= x1 and y0 <= y1; got {x0:g}, {y0:g}, {x1:g}, {y1:g}"
                )
            boxes = ((x0, y0, x1, y1),)
        mask = row.get("mask") or ""
        credit = ", ".join(filter(None, (row.get("author"), _licence_name(row.get("license") or ""))))
        before = photos.get(name, Photo(name, label))
        if before.label != label:
            raise InputError(f"line {number} of {path}: {name} already has the label {before.label}; got {label}")
        if mask and before.mask not in ("", mask):
            raise InputError(f"line {number} of {path}: {name} already has the mask {before.mask}; got {mask}")
        photo = Photo(name, label, before.boxes + boxes, credit or before.credit, mask or before.mask)
        if photo.mask and photo.boxes:
            raise InputError(f"line {number} of {path}: {name} has a mask and a box; give one of them")
        photos[name] = photo
    return list(photos.values())


def _licence_name(text: str) -> str:
    """CC BY 2.0 for the address of that licence; other texts as they are."""
    found = re.fullmatch(r"https?://creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)/?.*", text)
    return f"CC {found[1].upper()} {found[2]}" if found else text


def _class_finder(class_names: Sequence[str]) -> Callable[[str, str], int]:
    """`(text, where) -> index`."""
    places: dict[str, set[int]] = {}
    for i, name in enumerate(class_names):
        for synonym in {name, *name.split(",")}:
            places.setdefault(folded(synonym), set()).add(i)

    def find(text: str, where: str) -> int:
        if re.fullmatch(r"\s*[0-9]+\s*", text):
            if len(text.strip().lstrip("0")) > 9 or int(text) >= len(class_names):
                raise InputError(f"{where}: expected a class from 0 to {len(class_names) - 1}; got {text[:80]}")
            return int(text)
        found = places.get(folded(text), set())
        both = None if found else re.fullmatch(r"\s*([0-9]{1,9})[_ ](.+)", text)
        if both:  # 00_dog, as ImageNet-9 has them: the index and the name of one class
            found = places.get(folded(both[2]), set()) & {int(both[1])}
        if len(found) != 1:
            what = "is no class of the model" if not found else f"names several classes ({sorted(found)})"
            raise InputError(f"{where}: {text[:80]!r} {what}; give a class's name, or its index")
        return next(iter(found))

    return find


def folded(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def box_array(photo: Photo) -> np.ndarray:
    """The boxes of a photo, float32[N, 4]."""
    return np.asarray(photo.boxes, np.float32).reshape(-1, 4)
