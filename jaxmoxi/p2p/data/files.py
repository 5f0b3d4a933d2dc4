"""Labelled images in folders: any folder of classes, ImageNet-9, BAM and COCO-10, the last three with object masks.

The layouts are the published ones, described at each class; the authors of P2P (Vandenhirtz and Vogt, ICML 2025) read
the same folders. There are two differences. A mask belongs to the image of the same name, not to the image at the same
place in the listing, so a missing mask is an error and does not shift all that follow. And masks may be images as well
as .npy files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from jaxmoxi.errors import InputError, warn
from jaxmoxi.escape import printable
from jaxmoxi.files import PhotoWarning, UnreadableError, read_photo
from jaxmoxi.files import read_image as read_any
from jaxmoxi.p2p.data.example import Example
from jaxmoxi.photos.listing import Listing, describe_left_out, find_photos

MASK_SUFFIXES = (".npy", ".png")
IMAGENET9_CLASSES: tuple[str, ...] = (
    "dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish",
)  # fmt: skip
BAM_MASK_SIZE = 224


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as upright 8-bit RGB (`jaxmoxi.files.read_photo`). Raises ValueError that names a broken file."""
    return np.array(read_photo(path))


def read_mask(path: str | Path) -> Bool[np.ndarray, "H W"]:
    """Reads a mask file, .npy (never unpickled) or an image: True where it is not 0.

    Raises ValueError that names a file which is unreadable or is not one number per pixel.
    """
    try:
        is_array = Path(path).suffix.lower() == ".npy"
        values = np.load(path, allow_pickle=False) if is_array else read_any(path, _levels)
    except UnreadableError as error:
        raise InputError(f"the mask {path} cannot be read ({error.reason})") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"the mask {path} cannot be read ({error})") from None
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise InputError(f"expected a mask of numbers [H, W] in {path}; got {values.dtype} of shape {values.shape}")
    return values != 0


def _levels(picture: Image.Image) -> np.ndarray:
    """One number for each pixel: the level or label itself, whatever its depth; of colours whether they are black."""
    if picture.mode in ("1", "L", "P", "F") or picture.mode.startswith("I"):
        return np.asarray(picture)
    return np.asarray(picture.convert("RGB")).max(axis=-1)


class ImageFolder:
    """Images in one folder per class, as ImageNet has them: `root/CLASS/FILE`.

    root:  the folder of the classes, which are its folders, sorted by name. Each class's images lie in its folder, or
           in folders of that one. Which files are images is told by `jaxmoxi.photos.listing.find_photos`; hidden files
           are skipped, and a `PhotoWarning` lists all others, with the plug-in that a format needs.
    masks: a folder of the same classes with a mask for every image, `masks/CLASS/STEM.npy` or `.png`, in the same
           folders as the images; None for none.

    labels:   int32[N], the label of every image.
    left_out: (path, reason) of the files that are not read as images.
    Raises ValueError for a folder that is missing, has no class folders or an empty one, or lacks a mask; reading an
    example raises ValueError that names a file which is broken, or a mask that is not of its image's size.
    """

    def __init__(self, root: str | Path, *, masks: str | Path | None = None):
        self.root = Path(root)
        folders = _class_folders(self.root)
        self.class_names: tuple[str, ...] = tuple(folder.name for folder in folders)
        self._paths: list[Path] = []
        self.left_out: list[tuple[str, str]] = []
        labels: list[int] = []
        for label, folder in enumerate(folders):
            found = find_photos(folder)
            self.left_out += [(f"{folder.name}/{name}", reason) for name, reason in found.left_out]
            if not found.photos:
                raise InputError(_empty(folder, found))
            self._paths += [folder / name for name in found.photos]
            labels += [label] * len(found.photos)
        if self.left_out:
            told = describe_left_out(len(self._paths), self.left_out)
            warn(f"{printable(str(self.root))}: {told}", PhotoWarning)
        self.labels: Int[np.ndarray, "N"] = np.array(labels, np.int32)
        self._masks = None if masks is None else _pair_masks(Path(masks), self.root, self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int, /) -> Example:
        image = read_image(self._paths[index])
        mask = None if self._masks is None else read_mask(self._masks[index])
        if mask is not None and mask.shape != image.shape[:2]:
            image = self._fitted(image, mask, index)
        return Example(image, int(self.labels[index]), mask)

    def _fitted(self, image: np.ndarray, mask: np.ndarray, index: int) -> np.ndarray:
        """The part of the image that a mask of another size covers. Most layouts do not allow such a mask."""
        raise InputError(
            f"the mask {self._masks and self._masks[index]} has {mask.shape[0]} x {mask.shape[1]} pixels, its image "
            f"{self._paths[index]} {image.shape[0]} x {image.shape[1]}: a mask must have the size of its image"
        )


class ImageNet9(ImageFolder):
    """ImageNet-9, of the Backgrounds Challenge (Xiao et al., "Noise or Signal", 2020), with foreground masks.

    root:    the unpacked release: `root/VARIANT/SPLIT/00_dog/FILE`, masks in `root/fg_mask/SPLIT/00_dog/FILE.npy`.
             The masks were published for the 224 x 224 pixel test images, in "val", alone.
    variant: which images: "original", "mixed_rand", "only_bg_t", ...
    split:   "train" or "val".
    masks:   whether to read the masks; False where there are none.
    Raises ValueError as `ImageFolder` does, and for classes other than the nine.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        variant: str = "original",
        split: Literal["train", "val"] = "val",
        masks: bool = True,
    ):
        root = Path(root)
        super().__init__(root / variant / split, masks=root / "fg_mask" / split if masks else None)
        found = tuple(name.partition("_")[2].replace("_", " ") for name in self.class_names)
        if found != IMAGENET9_CLASSES:
            raise InputError(
                f"expected the folders 00_dog to 08_fish in {self.root}; got {', '.join(self.class_names)}"
            )
        self.class_names = IMAGENET9_CLASSES


class BAM(ImageFolder):
    """BAM (Yang and Kim, 2019): objects of MS COCO pasted into scenes of MiniPlaces.

    root:   the `data` folder that BAM's script makes: `root/obj/SPLIT/CLASS/FILE` with object labels,
            `root/scene/SPLIT/CLASS/FILE` with scene labels, masks of the *object* (whatever the labels) in
            `root/obj/val_mask/CLASS/STEM.npy` and `root/scene/val_mask/CLASS/STEM.npy`.
    labels: "object" or "scene".
    split:  "train", without masks, or "val".
    masks:  whether to read the masks; None reads them for "val".

    A mask of 224 x 224 pixels covers the centre of its image, as published, so the image is cropped to its centre.
    Raises ValueError as `ImageFolder` does.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        labels: Literal["object", "scene"],
        split: Literal["train", "val"] = "train",
        masks: bool | None = None,
    ):
        if labels not in ("object", "scene"):
            raise InputError(f'expected labels of "object" or "scene"; got {labels!r}')
        folder = Path(root) / {"object": "obj", "scene": "scene"}[labels]
        masked = split == "val" if masks is None else masks
        super().__init__(folder / split, masks=folder / f"{split}_mask" if masked else None)

    def _fitted(self, image: np.ndarray, mask: np.ndarray, index: int) -> np.ndarray:
        size = BAM_MASK_SIZE
        if mask.shape != (size, size) or min(image.shape[:2]) < size:
            return super()._fitted(image, mask, index)
        top, left = (round((side - size) / 2) for side in image.shape[:2])
        return image[top : top + size, left : left + size]


class COCO10(ImageFolder):
    """COCO-10, as `build_coco10` makes it: `root/SPLIT/CLASS/FILE`, masks in `root/mask/SPLIT/CLASS/STEM.png`.

    split: "train" or "val".
    Raises ValueError as `ImageFolder` does.
    """

    def __init__(self, root: str | Path, *, split: Literal["train", "val"] = "train"):
        root = Path(root)
        super().__init__(root / split, masks=root / "mask" / split)


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"expected a folder of class folders at {root}; there is none")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"expected one folder per class in {root}; it has no folders")
    return folders


def _empty(folder: Path, found: Listing) -> str:
    others = f" ({found.told})" if found.left_out else ""
    return f"the class folder {folder} holds no image{others}: fill it or delete it"


def _pair_masks(masks: Path, root: Path, images: list[Path]) -> list[Path]:
    """The mask of every image."""
    if not masks.is_dir():
        raise InputError(f"expected the masks of {root} in the folder {masks}; there is none")
    paired = []
    listed: dict[Path, dict[str, Path]] = {}
    for image in images:
        folder = masks / image.relative_to(root).parent
        if folder not in listed:
            listed[folder] = _masks_in(folder)
        mask = listed[folder].get(image.stem)
        if mask is None:
            raise InputError(f"the image {image} has no mask; expected {folder / image.stem}.npy or .png")
        paired.append(mask)
    return paired


def _masks_in(folder: Path) -> dict[str, Path]:
    """The masks of a folder by the name without its ending; an image where there are both."""
    if not folder.is_dir():
        return {}
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.stem: path for path in paths if path.name.lower().endswith(MASK_SUFFIXES)}
