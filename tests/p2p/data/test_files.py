"""Folders and archives of images: what is read, and what is said about what is broken."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxmoxi.p2p.data import BAM, CIFAR10, COCO10, IMAGENET9_CLASSES, ImageFolder, ImageNet9, cifar
from jaxmoxi.p2p.data.files import read_image, read_mask


def picture(seed, height=6, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, mask)


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(["cat/b.png", "cat/a.PNG", "ant/x.bmp"]):
        save(tmp_path / "data" / name, picture(seed))
    (tmp_path / "data" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "data" / ".hidden").mkdir()
    return tmp_path / "data"


def test_image_folder(root):
    source = ImageFolder(root)
    assert source.class_names == ("ant", "cat")
    assert source.labels.tolist() == [0, 1, 1]
    assert len(source) == 3
    for example, label, seed in zip((source[0], source[1], source[2]), (0, 1, 1), (2, 1, 0), strict=True):
        np.testing.assert_array_equal(example.image, picture(seed))
        assert (example.label, example.mask, example.regions) == (label, None, None)


def test_every_kind_of_image_becomes_rgb(tmp_path):
    grey = picture(0)[..., 0]
    flat = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", grey)), flat)
    np.testing.assert_array_equal(read_image(save(tmp_path / "deep.png", grey.astype(np.uint16) * 257)), flat)
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").tolist() == [[[255, 0, 0], [0, 0, 255]], [[0, 0, 255], [255, 0, 0]]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert np.abs(read_image(tmp_path / "cmyk.jpg").astype(int) - [255, 0, 0]).max() < 8
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.webp", picture(0), lossless=True)), picture(0))


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = save(tmp_path / "turned.png", picture(0), exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(picture(0), -1))


def test_a_truncated_image_is_named(root):
    path = save(root / "cat" / "c.jpg", picture(0, 64, 64))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"c.jpg cannot be read as an image .*truncated.*: copy the file again"):
        ImageFolder(root)[3]
    path.write_text("this is text")
    with pytest.raises(ValueError, match=r"c.jpg cannot be read as an image \(not an image of a known format"):
        ImageFolder(root)[3]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.int32])
def test_a_mask_of_low_levels_is_no_empty_mask(tmp_path, depth):
    inside = np.zeros((4, 6), bool)
    inside[1:3, 2:] = True
    Image.fromarray(inside.astype(depth)).save(tmp_path / "mask.png", "TIFF")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), inside)
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[inside] = 0, 0, 1
    Image.fromarray(colours).save(tmp_path / "blue.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "blue.png"), inside)


def test_folders_that_are_none(root, tmp_path):
    (root / "dog").mkdir()
    (root / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"class folder .*dog holds no image .*notes.txt.*fill it or delete it"):
        ImageFolder(root)
    with pytest.raises(ValueError, match=r"expected a folder of class folders at .*nowhere; there is none"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected one folder per class in .*cat; it has no folders"):
        ImageFolder(root / "cat")


def test_masks_belong_to_the_image_of_their_name(root, tmp_path):
    masks = tmp_path / "masks"
    with pytest.raises(ValueError, match=r"expected the masks of .*data in the folder .*masks; there is none"):
        ImageFolder(root, masks=masks)
    own = {name: picture(name[-1].encode()[0])[..., 0] > 128 for name in ("cat/b", "cat/a", "ant/x")}
    save_mask(masks / "cat" / "b.npy", own["cat/b"])
    save_mask(masks / "ant" / "x.npy", own["ant/x"].astype(np.uint8) * 7)
    with pytest.raises(ValueError, match=r"the image .*a.PNG has no mask; expected .*cat/a.npy or .png"):
        ImageFolder(root, masks=masks)
    save(masks / "cat" / "a.png", own["cat/a"])
    source = ImageFolder(root, masks=masks)
    for index, name in enumerate(("ant/x", "cat/a", "cat/b")):
        assert source[index].mask.dtype == bool
        np.testing.assert_array_equal(source[index].mask, own[name])


def test_masks_that_are_wrong(root, tmp_path):
    masks = tmp_path / "masks"
    for name in ("cat/a", "cat/b", "ant/x"):
        save_mask(masks / f"{name}.npy", np.ones((6, 7), bool))
    source = ImageFolder(root, masks=masks)
    with pytest.raises(ValueError, match=r"mask .*ant/x.npy has 6 x 7 pixels, its image .*ant/x.bmp 6 x 8"):
        source[0]
    save_mask(masks / "ant" / "x.npy", np.ones((6, 8, 3), bool))
    with pytest.raises(ValueError, match=r"expected a mask of numbers \[H, W\] in .*x.npy; got bool of shape"):
        source[0]
    np.save(masks / "ant" / "x.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"the mask .*x.npy cannot be read \(.*allow_pickle"):
        source[0]


def test_imagenet9(tmp_path):
    for label, name in enumerate(IMAGENET9_CLASSES):
        stem = f"0{label}_{name.replace(' ', '_')}/n{label}"
        save(tmp_path / "original" / "val" / f"{stem}.JPEG", picture(label))
        save_mask(tmp_path / "fg_mask" / "val" / f"{stem}.npy", picture(label)[..., 1] > 100)
    source = ImageNet9(tmp_path)
    assert source.class_names == IMAGENET9_CLASSES
    np.testing.assert_array_equal(source[4].mask, picture(4)[..., 1] > 100)
    assert ImageNet9(tmp_path, masks=False)[4].mask is None
    save(tmp_path / "original" / "train" / "00_dog" / "x.JPEG", picture(0))
    with pytest.raises(ValueError, match="expected the folders 00_dog to 08_fish in .*train; got 00_dog"):
        ImageNet9(tmp_path, split="train", masks=False)


@pytest.mark.usefixtures("unchecked")
def test_bam(tmp_path):
    wide = picture(0, 240, 256)
    mask = picture(1, 224, 224)[..., 0] > 200
    for split in ("train", "val"):
        save(tmp_path / "scene" / split / "cockpit" / "dog-cockpit-0900.png", wide)
    save_mask(tmp_path / "scene" / "val_mask" / "cockpit" / "dog-cockpit-0900.npy", mask)
    train = BAM(tmp_path, labels="scene")[0]
    np.testing.assert_array_equal(train.image, wide)
    assert train.mask is None
    cut = BAM(tmp_path, labels="scene", split="val")[0]
    np.testing.assert_array_equal(cut.image, wide[8:232, 16:240])
    np.testing.assert_array_equal(cut.mask, mask)
    save_mask(tmp_path / "scene" / "val_mask" / "cockpit" / "dog-cockpit-0900.npy", mask[1:])
    with pytest.raises(ValueError, match=r"0900.npy has 223 x 224 pixels, its image .*0900.png 240 x 256"):
        BAM(tmp_path, labels="scene", split="val")[0]
    with pytest.raises(ValueError, match=r"expected a folder of class folders at .*obj/train"):
        BAM(tmp_path, labels="object")
    with pytest.raises(ValueError, match='expected labels of "object" or "scene"; got \'both\''):
        BAM(tmp_path, labels="both")


def test_coco10_layout(tmp_path):
    save(tmp_path / "val" / "bed" / "1.png", picture(0))
    save(tmp_path / "mask" / "val" / "bed" / "1.png", picture(0)[..., 0] > 90)
    np.testing.assert_array_equal(COCO10(tmp_path, split="val")[0].mask, picture(0)[..., 0] > 90)


def test_a_mask_may_be_an_image_of_any_depth(tmp_path):
    mask = picture(3)[..., 0] > 128
    np.testing.assert_array_equal(read_mask(save(tmp_path / "one.png", mask)), mask)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "eight.png", mask * np.uint8(255))), mask)


@pytest.fixture
def few_records(monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", 20)


def cifar_file(seed):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (20, 32, 32, 3), np.uint8), rng.integers(0, 10, 20)
    records = b"".join(
        bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(images, labels, strict=True)
    )
    return images, labels, records


@pytest.mark.usefixtures("few_records")
def test_cifar10_from_the_binary_archive_and_from_its_folder(tmp_path):
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = [cifar_file(seed) for seed in range(6)]
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, (_, _, records) in zip(names, files, strict=True):
            (folder / name).write_bytes(records)
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(records)
            archive.addfile(entry, io.BytesIO(records))
    for path in (tmp_path / "cifar-10-binary.tar.gz", folder, tmp_path):
        train, test = CIFAR10(path), CIFAR10(path, split="test")
        assert (len(train), len(test)) == (100, 20)
        np.testing.assert_array_equal(train.images, np.concatenate([f[0] for f in files[:5]]))
        np.testing.assert_array_equal(train.labels, np.concatenate([f[1] for f in files[:5]]))
        np.testing.assert_array_equal(test[7].image, files[5][0][7])
        assert test.class_names[test[7].label] == cifar.CIFAR10_CLASSES[files[5][1][7]]

    (folder / "data_batch_3.bin").write_bytes(files[2][2][:-1])
    with pytest.raises(
        ValueError, match=r"expected 20 records of 3073 bytes, 61460 in all, .*data_batch_3.bin; got 61459"
    ):
        CIFAR10(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match="data_batch_3.bin is missing"):
        CIFAR10(folder)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes((tmp_path / "cifar-10-binary.tar.gz").read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"cut.tar.gz cannot be read .*is the download complete\?"):
        CIFAR10(cut)


def test_cifar10_archive_of_another_size(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.size = 3073
        archive.addfile(entry, io.BytesIO(bytes(3073)))
    with pytest.raises(ValueError, match=r"10000 records of 3073 bytes, 30730000 in all, .*test_batch.bin; got 3073 "):
        CIFAR10(tmp_path / "a.tar.gz", split="test")
    with pytest.raises(ValueError, match=r"data_batch_1.bin is missing: is it the binary version\?"):
        CIFAR10(tmp_path / "a.tar.gz")
    with pytest.raises(ValueError, match="or the folder cifar-10-batches-bin, at .*nowhere; there is nothing"):
        CIFAR10(tmp_path / "nowhere")


@pytest.mark.usefixtures("few_records")
def test_cifar10_from_sheets(tmp_path):
    images, labels, _ = cifar_file(0)
    save(tmp_path / "test_batch.png", images.reshape(20, 1024, 3))
    (tmp_path / "test_lables.json").write_text(json.dumps(labels.tolist()))
    test = CIFAR10(tmp_path, split="test")
    np.testing.assert_array_equal(test.images, images)
    np.testing.assert_array_equal(test.labels, labels)
    save(tmp_path / "test_batch.png", images.reshape(20, 1024, 3)[:7])
    with pytest.raises(ValueError, match=r"expected 20 x 1024 pixels in .*test_batch.png; got 7 x 1024"):
        CIFAR10(tmp_path, split="test")
