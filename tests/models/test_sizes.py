"""Networks for images that are not square, not of their weights' size, or not of three channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.models.networks.positions import resize_grid
from support.checkpoints import HUGGINGFACE, MOBILENET, PROCESSOR, TIMM, mobilenet_tensors, vit_tensors, write_folder
from support.networks import made_tensors

load = jm.models.load
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8))


def test_a_transformer_at_another_size(tmp_path):
    folder = write_folder(tmp_path, tensors=vit_tensors())
    model = load(folder, image_size=(24, 40))
    assert (model.token_grid, model.preprocessing.size, model.config.image_size) == ((3, 5), (24, 40), (24, 40))
    assert model.preprocess(PHOTO).shape == (24, 40, 3)
    assert load(folder, image_size=32).token_grid == load(folder, image_size=(32, 32)).token_grid == (4, 4)
    own = load(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, load(folder, image_size=16).params, own.params))
    # Where the size is another, the class token's embedding stays and the patches' are interpolated.
    before, after = np.asarray(own.network().position[...]), np.asarray(model.network().position[...])
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_allclose(
        after[1:].reshape(3, 5, -1), resize_grid(before[1:].reshape(2, 2, -1), (3, 5)), rtol=1e-6
    )


def test_tokens_and_pixels_of_oblong_images(tmp_path):
    model = load(write_folder(tmp_path, tensors=vit_tensors()), image_size=(16, 32))
    image = model.preprocess(PHOTO)
    v = jm.token_value_fn(model, image, 1)
    masks = jnp.asarray(np.random.default_rng(1).random((6, 8)) < 0.6)
    tokens = jax.tree.map(lambda t: t[None], jax.jit(model.embed_tokens)(image))
    gone = jax.jit(jax.vmap(lambda mask: model.encode_tokens(tokens, mask[None])))
    logits = np.asarray(gone(masks))[:, 0]
    others = np.log(np.exp(np.delete(logits, 1, 1)).sum(1))
    np.testing.assert_allclose(v(masks), logits[:, 1] - others, rtol=1e-4, atol=1e-5)
    whole = gone(jnp.ones((6, 8), bool))[0]
    np.testing.assert_allclose(jax.jit(model.logits)(image[None]), whole, rtol=1e-4, atol=1e-5)
    assert jax.eval_shape(model.features, image[None]).maps.shape == (1, 2, 4, 12)
    assert jax.eval_shape(model.attention_maps, image).shape == (2, 3, 9, 9)


@pytest.mark.parametrize(("size", "antialias"), [((5, 7), False), ((2, 1), False), ((2, 3), True), ((9, 4), True)])
def test_interpolation_keeps_what_it_must(size, antialias):
    grid = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    for mode in ("bicubic", "bilinear"):
        options = {"mode": mode, "antialias": antialias}
        np.testing.assert_allclose(resize_grid(np.full((4, 6), 2.5, np.float32), size, **options), 2.5, rtol=1e-6)
        mirrored = resize_grid(grid[::-1, ::-1], size, **options)[::-1, ::-1]
        np.testing.assert_allclose(resize_grid(grid, size, **options), mirrored, atol=1e-6)
        assert resize_grid(grid, (4, 6), **options) is not None
    np.testing.assert_array_equal(resize_grid(grid, (4, 6)), grid)


@pytest.mark.parametrize(
    ("photo", "crop", "size", "resize", "fit"),
    [
        (256, (224, 224), (384, 384), 438, "squash"),  # floor(384 / 0.875), as timm's
        (256, (224, 224), (224, 448), (256, 512), "cover"),
        ((256, 256), (224, 224), (112, 224), (128, 256), "squash"),
        ((224, 224), None, (160, 288), (160, 288), "squash"),
    ],
)
def test_a_crop_keeps_its_share(photo, crop, size, resize, fit):
    found = jm.models.Preprocessing(resize=photo, crop=crop).to_size(size)
    assert (found.resize, found.size, found.fit) == (resize, size, fit)


def test_cover_keeps_proportions():
    stripes = np.zeros((60, 120, 3), np.uint8)
    stripes[:, 40:80] = 255  # a third of the width, in the middle
    p = jm.models.Preprocessing(resize=(32, 32), crop=(32, 32), fit="cover")
    seen = jm.models.preprocess.crop_photo(stripes, p)[16, :, 0] > 127
    assert seen.sum() == pytest.approx(64 / 3, abs=1)  # of 64 columns once resized
    with pytest.raises(ValueError, match='fit="cover" needs resize=\\(height, width\\) and a crop'):
        jm.models.Preprocessing(resize=(32, 32), fit="cover")


def test_a_network_of_greys(tmp_path):
    tensors = vit_tensors()
    name = "vit.embeddings.patch_embeddings.projection.weight"
    grey = {**tensors, name: tensors[name].sum(1, keepdims=True)}
    processor = {**PROCESSOR, "image_mean": [0.5], "image_std": 0.5}
    model = load(write_folder(tmp_path / "grey", {**HUGGINGFACE, "num_channels": 1}, grey, processor))
    levels = np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8)
    image = model.preprocess(levels)
    assert image.shape == (16, 16, 1)
    assert model.crop(levels[..., None]).shape == (16, 16, 1)
    np.testing.assert_array_equal(image, model.preprocess(np.repeat(levels[..., None], 3, -1)))
    # A network of three channels that sees the grey in each of them answers the same.
    both = {**PROCESSOR, "image_mean": [0.5] * 3}
    colour = load(write_folder(tmp_path / "colour", tensors=tensors, processor=both))
    np.testing.assert_allclose(model.logits(image[None]), colour.logits(colour.preprocess(levels)[None]), rtol=1e-4)
    with pytest.raises(ValueError, match="image_(mean|std) must be 1 numbers, one for each channel"):
        load(write_folder(tmp_path / "grey", {**HUGGINGFACE, "num_channels": 1}, grey, PROCESSOR))
    assert load(tmp_path / "grey", preprocessing="half").preprocessing.mean == (0.5,)
    with pytest.raises(ValueError, match="'imagenet' is for images of three channels, and the network takes 1"):
        load(tmp_path / "grey", preprocessing="imagenet")


def test_a_network_of_many_channels(tmp_path):
    settings = {**MOBILENET, "num_channels": 5, "architectures": ["MobileNetV2ForImageClassification"]}
    tensors = mobilenet_tensors(num_channels=5)
    folder = write_folder(tmp_path, settings, tensors, None)
    with pytest.raises(ValueError, match="the preprocessing makes images of 3 channels, the network takes 5"):
        load(folder)
    model = load(
        folder,
        preprocessing={
            "image_mean": [0.1, 0.2, 0.3, 0.4, 0.5],
            "image_std": [0.5],
            "size": {"height": 32, "width": 32},
        },
    )
    bands = np.random.default_rng(0).integers(0, 256, (50, 60, 5), dtype=np.uint8)
    assert model.preprocess(bands).shape == (32, 32, 5)
    np.testing.assert_array_equal(
        model.crop(bands)[..., 3],
        np.asarray(Image.fromarray(bands[..., 3]).resize((32, 32), Image.Resampling.BILINEAR)),
    )
    with pytest.raises(
        ValueError, match=r"expected an array uint8\[H, W, 5\], as the network takes 5 channels; got an"
    ):
        model.preprocess(PHOTO)
    with pytest.raises(ValueError, match=r"expected an array uint8\[H, W, 5\] for this network; got \[50, 60, 4\]"):
        model.preprocess(bands[..., :4])


def test_timm_says_which_size(tmp_path):
    tensors = vit_tensors("timm")
    tensors["pos_embed"] = made_tensors({"pos_embed": (1, 9, 12)})["pos_embed"]
    args = {**TIMM["model_args"], "img_size": [16, 32]}
    oblong = {**TIMM, "model_args": args, "pretrained_cfg": {**TIMM["pretrained_cfg"], "input_size": [3, 16, 32]}}
    model = load(write_folder(tmp_path, oblong, tensors, None))
    assert (model.token_grid, model.preprocessing.fit) == ((2, 4), "cover")
    del oblong["pretrained_cfg"]["input_size"], args["img_size"]
    with pytest.raises(ValueError, match="misshapen: pos_embed"):  # eight patches make no square
        load(write_folder(tmp_path, oblong, tensors, None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 20}, "image_size 20 is not a multiple of patch_size 8"),
        ({"image_size": (16, 20)}, r"image_size \(16, 20\) is not a multiple"),
        ({"image_size": 0}, "image_size must be a whole number of pixels of at least 1"),
        ({"image_size": (8, -8)}, "image_size must be a whole number of pixels of at least 1"),
        (
            {"image_size": 24, "preprocessing": jm.models.Preprocessing(resize=(16, 16))},
            r"expected preprocessing to make images of image_size \(24, 24\); it makes \(16, 16\)",
        ),
        ({"preprocessing": jm.models.Preprocessing(resize=(24, 24))}, r"or say image_size=\(24, 24\)"),
    ],
)
def test_sizes_that_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load(write_folder(tmp_path, tensors=vit_tensors()), **options)


def test_networks_of_any_size_follow_the_photos(tmp_path):
    processor = {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 48}, "crop_size": 40}
    folder = write_folder(tmp_path, MOBILENET, mobilenet_tensors(), processor)
    assert load(folder).config.image_size == 40
    model = load(folder, image_size=(48, 24))
    assert (model.preprocessing.size, model.config.image_size) == ((48, 24), (48, 24))
    assert model.logits(model.preprocess(PHOTO)[None]).shape == (1, 3)
