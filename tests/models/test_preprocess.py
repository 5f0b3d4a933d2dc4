import numpy as np
import pytest
import skimage.data
from PIL import Image

from jaxmoxi.files import to_rgb
from jaxmoxi.models.checkpoints.demo import DEMO_PREPROCESSING
from jaxmoxi.models.preprocess import Preprocessing, crop_photo, normalize, preprocess

CHELSEA = skimage.data.chelsea()  # 300 x 451
AS_IS = Preprocessing(crop=(2, 3))  # of a photo of that very size: the pixels themselves
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_short_side_and_centre_crop_of_a_wide_and_a_tall_photo():
    wide = Image.fromarray(CHELSEA)
    # int(256 * 451 / 300) = 384; (384 - 224) / 2 = 80, (256 - 224) / 2 = 16
    expected = np.asarray(wide.resize((384, 256), Image.Resampling.BICUBIC).crop((80, 16, 304, 240)))
    np.testing.assert_array_equal(crop_photo(CHELSEA, DEMO_PREPROCESSING), expected)
    tall = np.ascontiguousarray(CHELSEA.swapaxes(0, 1))
    resized = Image.fromarray(tall).resize((256, 384), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(crop_photo(tall, DEMO_PREPROCESSING), np.asarray(resized)[80:304, 16:240])


def test_the_long_side_is_rounded_down():
    # 10 * 199 / 100 = 19.9 becomes 19: offsets (19 - 8) // 2 = 5 and (10 - 8) // 2 = 1
    photo = pixels(100, 199, 3)
    expected = np.asarray(Image.fromarray(photo).resize((19, 10), Image.Resampling.BILINEAR))[1:9, 5:13]
    np.testing.assert_array_equal(crop_photo(photo, Preprocessing(resize=10, crop=(8, 8))), expected)


def test_squashed_to_both_sides():
    expected = np.asarray(Image.fromarray(CHELSEA).resize((50, 40), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(crop_photo(CHELSEA, Preprocessing(resize=(40, 50), resample=1)), expected)


@pytest.mark.parametrize(("spare", "down", "even"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (5, 2, 2), (7, 3, 4)])
def test_odd_spare_pixels(spare, down, even):
    photo = pixels(2 + spare, 3, 3)
    for rounding, offset in (("down", down), ("even", even)):
        cropped = crop_photo(photo, Preprocessing(crop=(2, 3), crop_rounding=rounding))
        np.testing.assert_array_equal(cropped, photo[offset : offset + 2])


def test_normalisation():
    photo = np.array([[[0, 127, 255]] * 3] * 2, np.uint8)
    p = Preprocessing(crop=(2, 3), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    out = preprocess(photo, p)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[1, 2], [-0.2, (127 / 255 - 0.2) / 0.25, 0.35], rtol=1e-6)
    demo = preprocess(CHELSEA, DEMO_PREPROCESSING)
    assert demo.shape == (224, 224, 3)
    np.testing.assert_allclose(demo * 128 + 127, crop_photo(CHELSEA, DEMO_PREPROCESSING), atol=1e-4)


def test_a_photo_that_is_rgb_already_is_not_copied_and_normalising_is_the_second_half():
    photo = Image.fromarray(CHELSEA)
    assert to_rgb(photo) is photo
    cropped = crop_photo(photo, DEMO_PREPROCESSING)
    np.testing.assert_array_equal(normalize(cropped, DEMO_PREPROCESSING), preprocess(photo, DEMO_PREPROCESSING))


def test_every_mode_becomes_rgb():
    rgb = pixels(2, 3, 3)
    grey = rgb[..., 0]
    images = {
        "RGB": (Image.fromarray(rgb), rgb),
        "L": (Image.fromarray(grey), np.stack([grey] * 3, -1)),
        "LA": (Image.fromarray(grey).convert("LA"), np.stack([grey] * 3, -1)),
        "1": (Image.fromarray(grey > 99), np.stack([255 * (grey > 99)] * 3, -1)),
        "P": (Image.fromarray(rgb).quantize(6), np.asarray(Image.fromarray(rgb).quantize(6).convert("RGB"))),
        "CMYK": (Image.fromarray(255 - rgb).convert("CMYK"), 255 - rgb),
        "I;16": (Image.fromarray(grey.astype(np.uint16) * 257), np.stack([grey] * 3, -1)),
        "I": (Image.fromarray(grey.astype(np.int32) * 257), np.stack([grey] * 3, -1)),
        "RGBA": (Image.fromarray(rgb).convert("RGBA"), rgb),
    }
    for mode, (image, expected) in images.items():
        assert image.mode == mode
        out = crop_photo(image, AS_IS)
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, expected, err_msg=mode)


def test_the_transparent_becomes_white():
    rgba = pixels(2, 3, 4)
    rgba[..., 3] = [[0, 255, 128]] * 2
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    for photo in (rgba, Image.fromarray(rgba)):
        out = crop_photo(photo, AS_IS)
        np.testing.assert_allclose(out, expected, atol=1)
        assert (out[:, 0] == 255).all()


def test_exif_orientation_is_applied():
    stored = pixels(3, 2, 3)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = 6  # stored lying on its left side: shown turned by 90 degrees clockwise
    np.testing.assert_array_equal(crop_photo(image, AS_IS), np.rot90(stored, -1))


def test_arrays():
    rgb = pixels(2, 3, 3)
    np.testing.assert_array_equal(crop_photo(rgb, AS_IS), rgb)
    np.testing.assert_array_equal(crop_photo(rgb[..., 0], AS_IS), np.stack([rgb[..., 0]] * 3, -1))
    np.testing.assert_array_equal(crop_photo(rgb[:, ::-1], AS_IS), rgb[:, ::-1])
    out = crop_photo(rgb, AS_IS)
    out[0] = 0  # the result is the caller's own
    assert rgb[0].any()


@pytest.mark.parametrize(
    ("photo", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), ValueError, "uint8 array with values 0 to 255; got float32"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"got shape \[4, 4, 2\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), ValueError, r"got shape \[1, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "empty array"),
        (np.zeros((2, 2, 3), np.uint8), ValueError, "at least 2 x 3 pixels.* got 2 x 2"),
        (Image.new("F", (4, 4)), ValueError, "floating-point greys"),
        (Image.new("I", (4, 4), 70000), ValueError, "0 to 65535; got 70000"),
        (Image.new("RGB", (0, 4)), ValueError, "4 x 0 pixels"),
        ("photo.png", TypeError, "PIL.Image.open"),
        ([[1, 2], [3, 4]], TypeError, "got list"),
    ],
)
def test_what_is_no_photo_is_refused(photo, error, message, unchecked):
    with pytest.raises(error, match=message):
        crop_photo(photo, AS_IS)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Preprocessing(resize=(32, 32))),
        ({"size": 48}, Preprocessing(resize=(48, 48))),
        ({"size": {"height": 20, "width": 30}, "resample": 0}, Preprocessing(resize=(20, 30), resample=0)),
        # A number is both sides to ViT and DeiT, though a crop follows, and the short side to the others.
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, Preprocessing(resize=(256, 256), crop=(224, 224))),
        (
            {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224},
            Preprocessing(resize=(256, 256), crop=(224, 224), resample=3),
        ),
        (
            {"image_processor_type": "MobileNetV2ImageProcessor", "size": 256, "crop_size": 224},
            Preprocessing(resize=256, crop=(224, 224)),
        ),
        (
            {"size": {"height": 40, "width": 44}, "do_center_crop": True, "crop_size": {"height": 32, "width": 36}},
            Preprocessing(resize=(40, 44), crop=(32, 36)),
        ),
        ({"do_resize": False, "do_center_crop": True}, Preprocessing(crop=(32, 32))),
        ({"image_processor_type": "DeiTImageProcessor"}, Preprocessing(resize=(36, 36), crop=(32, 32), resample=3)),
        ({"model_type": "deit"}, Preprocessing(resize=(36, 36), crop=(32, 32), resample=3)),
        ({"image_processor_type": "BitImageProcessor"}, Preprocessing(32, (32, 32), 3, mean=CLIP[0], std=CLIP[1])),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "image_mean": IMAGENET[0]},
            Preprocessing(256, (32, 32), 3, mean=IMAGENET[0], std=CLIP[1]),
        ),
        ({"image_processor_type": "CLIPImageProcessor"}, Preprocessing(32, (32, 32), 3, mean=CLIP[0], std=CLIP[1])),
        ({"image_processor_type": "SiglipImageProcessor"}, Preprocessing((32, 32), resample=3)),
        ({"image_processor_type": "BeitImageProcessor", "size": 48}, Preprocessing((48, 48), resample=3)),
        (
            {"image_processor_type": "PvtImageProcessorFast"},
            Preprocessing((32, 32), resample=3, mean=IMAGENET[0], std=IMAGENET[1]),
        ),
        (
            {
                "image_processor_type": "TimmWrapperImageProcessor",
                "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": HALF[0], "std": HALF[1]},
            },
            Preprocessing(32, (32, 32), 3, crop_rounding="even"),
        ),
        (
            {"feature_extractor_type": "MobileNetV2FeatureExtractor", "size": {"shortest_edge": 256}, "crop_size": 224},
            Preprocessing(resize=256, crop=(224, 224)),
        ),
        (
            {
                "image_processor_type": "ViTImageProcessorFast",
                "image_mean": IMAGENET[0],
                "image_std": list(IMAGENET[1]),
            },
            Preprocessing(resize=(32, 32), mean=IMAGENET[0], std=IMAGENET[1]),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
            Preprocessing(resize=256, crop=(224, 224)),
        ),
        (
            {
                "image_processor_type": "EfficientNetImageProcessor",
                "size": {"height": 30, "width": 30},
                "resample": 0,
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.5, 0.25, 0.1],
                "include_top": True,
            },
            Preprocessing((30, 30), None, 0, 1 / 255, 0.0, (0.485, 0.456, 0.406), (0.25, 0.0625, 0.1**2)),
        ),
        (  # the second division is the processor's default, and needs no first
            {
                "image_processor_type": "EfficientNetImageProcessor",
                "rescale_offset": True,
                "rescale_factor": 1 / 127.5,
                "do_normalize": False,
                "size": 30,
            },
            Preprocessing((30, 30), None, 3, 1 / 127.5, -1.0, (0.0, 0.0, 0.0), HALF[1]),
        ),
        (
            {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384},
            Preprocessing(resize=(384, 384)),
        ),
        ({"do_normalize": False}, Preprocessing(resize=(32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
        ({"do_rescale": False, "rescale_offset": True}, Preprocessing(resize=(32, 32), rescale_factor=1.0)),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": 0, "image_std": 1},
            Preprocessing(
                resize=(32, 32), rescale_factor=1 / 127.5, offset=-1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
            ),
        ),
    ],
)
def test_huggingface_files(config, expected):
    found = Preprocessing.from_huggingface(config, 32)
    assert found == expected
    assert hash(found) == hash(expected)


def test_offset_reaches_the_pixels():
    p = Preprocessing.from_huggingface(
        {"size": 2, "rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": 0, "image_std": 1}, 2
    )
    photo = np.array([[[0, 255, 51]] * 2] * 2, np.uint8)
    np.testing.assert_allclose(preprocess(photo, p)[0, 0], [-1, 1, -0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "got 'SamImageProcessor'"),
        ({"size": {"longest_edge": 40}}, "expected size to be pixels.*longest_edge"),
        ({"size": -3}, "expected size"),
        ({"size": {"shortest_edge": 40}}, "leaves the size of the result open"),
        ({"do_resize": False}, "leaves the size of the result open"),
        ({"size": 20, "do_center_crop": True}, "does not fit"),
        ({"size": 10**9}, "whole numbers from 1 to 32768"),
        ({"size": True}, "expected size"),
        ({"size": [224]}, "expected size"),
        ({"image_std": 1e-30}, "std .* must be positive"),
        ({"image_mean": 10**400}, "image_mean must be a number"),
        ({"rescale_factor": 0}, "must be positive"),
        ({"resample": True}, "expected a resampling filter"),
        ({"do_pad": True}, "do_pad: not implemented"),
        (
            {"image_processor_type": "LevitImageProcessor"},
            "expected the .* of .*Bit.*'LevitImageProcessor'",
        ),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 3}}, "expected crop_size"),
        ({"do_center_crop": True, "crop_pct": 0.9}, "both ask for a crop"),
        ({"crop_pct": 1.5}, r"crop_pct must lie in \(0, 1\]"),
        ({"do_center_crop": 1}, "must be true or false"),
        ({"image_mean": [0.5, 0.5]}, "image_mean must be three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "must be positive"),
        ({"resample": 9}, "0 to 5; got 9"),
        ({"resample": "cubic"}, "got 'cubic'"),
        ({"rescale_factor": "1/255"}, "must be a number"),
        ({"include_top": True}, "include_top .* is not for ViT"),
    ],
)
def test_huggingface_files_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_huggingface(config, 32)


def test_timm():
    found = Preprocessing.from_timm({"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic"})
    assert found == Preprocessing(248, (224, 224), 3, 1 / 255, 0.0, *IMAGENET, "even")
    squashed = {"input_size": (3, 32, 32), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    found = Preprocessing.from_timm({**squashed, "mean": HALF[0], "std": HALF[1]})
    assert found == Preprocessing((32, 32), (32, 32), 2, crop_rounding="even")
    assert Preprocessing.from_timm({}).resize == 256


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_size": [1, 28, 28], "mean": [0.5, 0.4]}, "mean must be 1 numbers"),
        ({"input_size": [3, 28, 0]}, "input_size"),
        ({"crop_mode": "border"}, "crop_mode"),
        ({"interpolation": "random"}, "got 'random'"),
        ({"crop_pct": 1.1}, "crop_pct"),
        ({"crop_pct": 1e-9}, "crop_pct"),
        ({"input_size": None}, "input_size"),
        ({"input_size": "3,224,224"}, "input_size"),
        ({"input_size": [3, 224.0, 224.0]}, "input_size"),
        ({"mean": [0.5, "0.5", 0.5]}, "mean must be a number"),
    ],
)
def test_timm_configs_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_timm(config)


def test_size():
    assert Preprocessing(resize=(20, 30)).size == (20, 30)
    assert DEMO_PREPROCESSING.size == (224, 224)
    with pytest.raises(ValueError, match="resize must be pixels"):
        Preprocessing(resize=(0, 3))
