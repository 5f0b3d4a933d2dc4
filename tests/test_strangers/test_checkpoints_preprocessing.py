"""Folders that do not say how a photo becomes the network's input, or what their classes are called."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
import skimage.data
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli.main import main
from jaxmoxi.models.checkpoints.demo import demo_weights_path
from jaxmoxi.models.preprocess import Preprocessing
from support.checkpoints import (
    CONFIG,
    HUGGINGFACE,
    MOBILENET,
    PROCESSOR,
    TIMM,
    mobilenet_tensors,
    vit_tensors,
    write_folder,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BARE = {k: v for k, v in TIMM.items() if k != "pretrained_cfg"}
ASSUMED = "assuming the preprocessing of the published weights of this name: mean"


def numbers(preprocessing):
    return preprocessing.mean, preprocessing.std


def deit_tensors():
    return vit_tensors("deit", dataclasses.replace(CONFIG, distilled=True))


def test_a_vit_of_hugging_face_must_say_it(tmp_path):
    """google/vit-* and facebook/dino-* have the same model_type and other numbers."""
    for model_type in ("vit", "vit_msn"):
        write_folder(tmp_path, HUGGINGFACE | {"model_type": model_type}, vit_tensors(), None)
        with pytest.raises(jm.InputError, match=r"does not say how a photo .*: say preprocessing=.imagenet.*--preproc"):
            jm.models.load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "expected", "resize"),
    [
        ("vit_tiny_patch16_224", HALF, 17),
        ("vit_base_patch16_224.mae", IMAGENET, 17),
        ("vit_base_patch16_224.bamboo", CLIP, 16),
        ("vit_small_patch16_384", HALF, 16),
        ("deit_tiny_patch16_224", IMAGENET, 17),
        ("deit_base_patch16_384.fb_in1k", IMAGENET, 16),
        ("vit_base_patch16_224_miil", ((0.0,) * 3, (1.0,) * 3), 18),
    ],
)
def test_known_architectures_get_their_published_numbers(tmp_path, architecture, expected, resize):
    write_folder(tmp_path, BARE | {"architecture": architecture}, vit_tensors("timm"), None)
    with pytest.warns(UserWarning, match=f"has no preprocessor_config.json; {ASSUMED} .*--preprocessing"):
        found = jm.models.load(tmp_path).preprocessing
    assert numbers(found) == expected
    assert (found.resize, found.crop) == (resize, (16, 16))


def test_unknown_architectures_are_refused(tmp_path):
    write_folder(tmp_path, BARE | {"architecture": "vit_pico_patch8_16"}, vit_tensors("timm"), None)
    with pytest.raises(jm.InputError, match="does not say how a photo becomes the network's input"):
        jm.models.load(tmp_path)
    assert jm.models.load(tmp_path, preprocessing="half").config.num_heads == 3


def test_part_of_a_pretrained_cfg(tmp_path):
    """timm takes ImageNet's numbers for those that are absent; which other weights were not trained with."""
    for silent, architecture, expected in (
        (("mean", "std"), "deit_tiny_patch16_224", IMAGENET), (("std",), "vit_tiny_patch16_224", HALF),
    ):  # fmt: skip
        cfg = {k: v for k, v in TIMM["pretrained_cfg"].items() if k not in silent}
        write_folder(tmp_path, TIMM | {"architecture": architecture, "pretrained_cfg": cfg}, vit_tensors("timm"), None)
        with pytest.warns(UserWarning, match=f"pretrained_cfg lacks {' and '.join(silent)}; {ASSUMED}"):
            assert numbers(jm.models.load(tmp_path).preprocessing)[1] == expected[1]
    settings = TIMM | {"architecture": "vit_pico_patch8_16", "pretrained_cfg": {"crop_pct": 1.0}}
    write_folder(tmp_path, settings, vit_tensors("timm"), None)
    with pytest.raises(jm.InputError, match="pretrained_cfg lacks mean and std: say preprocessing="):
        jm.models.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "tensors", "expected"),
    [
        (
            HUGGINGFACE | {"model_type": "deit"},
            deit_tensors,
            Preprocessing((18, 18), (16, 16), 3, 1 / 255, 0.0, *IMAGENET),
        ),
        (MOBILENET, mobilenet_tensors, Preprocessing(36, (32, 32), 2, 1 / 255, 0.0, *HALF)),
        (
            {"model_type": "mobilenet_v2", "image_size": 32, "width_mult": 0.35},
            lambda: mobilenet_tensors("torchvision"),
            Preprocessing(36, (32, 32), 2, 1 / 255, 0.0, *IMAGENET, "even"),
        ),
        (
            {"architecture": "mobilenetv2_035", "image_size": 32},
            lambda: mobilenet_tensors("timm"),
            Preprocessing(36, (32, 32), 3, 1 / 255, 0.0, *IMAGENET, "even"),
        ),
    ],
)  # fmt: skip
def test_other_families(tmp_path, settings, tensors, expected):
    write_folder(tmp_path, settings, tensors(), None)
    with pytest.warns(UserWarning, match=ASSUMED):
        assert jm.models.load(tmp_path).preprocessing == expected


def test_what_the_user_says(tmp_path):
    write_folder(tmp_path / "vit", HUGGINGFACE, vit_tensors())  # its own file says mean 0.5, 0.4, 0.3
    own = Preprocessing(resize=(20, 20), crop=(16, 16))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", "size": 16, "crop_size": 16}))
    cases = [
        (None, ((0.5, 0.4, 0.3), HALF[1])), ("imagenet", IMAGENET), ("half", HALF), ("inception", HALF), ("clip", CLIP),
        (own, HALF), ({"image_mean": [0.1] * 3, "image_std": 0.2}, ((0.1,) * 3, (0.2,) * 3)),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 1.0}, ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))),
        (other, CLIP), (str(other), CLIP), (tmp_path / "vit", ((0.5, 0.4, 0.3), HALF[1])),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for asked, expected in cases:
            found = jm.models.load(tmp_path / "vit", preprocessing=asked).preprocessing
            assert numbers(found) == expected, asked
            assert found.size == (16, 16)
    assert jm.models.load(tmp_path / "vit", preprocessing=own).preprocessing == own


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("imagnet", "expected preprocessing imagenet, half, clip or a .*; there is no file imagnet"),
        (Preprocessing(resize=(20, 20)), r"makes images of \(20, 20\) pixels, the network takes 16 x 16"),
        ({"size": 20, "image_mean": 0.5, "image_std": 0.5}, r"makes images of \(20, 20\) pixels"),
        ({"image_mean": "half", "image_std": 1}, "preprocessing: image_mean must be a number"),
        ({"image_processor_type": "SamImageProcessor"}, "expected the image processor of"),
        ({"size": 16}, "expected preprocessing with image_mean and image_std; got .*add them"),
        ({"image_meen": [0.1] * 3, "image_std": [0.1] * 3}, "expected preprocessing with image_mean"),
        ({"mean": [0.1] * 3, "sdt": [0.1] * 3}, "expected mean and std; std is absent"),
        (3, "expected preprocessing as a Preprocessing, a name, a file or a dict; got '3'"),
    ],
)  # fmt: skip
def test_what_the_user_cannot_say(tmp_path, asked, message, unchecked):
    write_folder(tmp_path, HUGGINGFACE, vit_tensors())
    with pytest.raises(jm.InputError, match=message):
        jm.models.load(tmp_path, preprocessing=asked)


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "efficientnet_lite0"])
def test_the_demos_weights_see_the_same_class(tmp_path, architecture):
    """Their tensors are named as TensorFlow's weights are converted; ImageNet's numbers change the top class."""
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    shutil.copy(demo_weights_path(), tmp_path / "model.pth")
    with pytest.warns(UserWarning, match=ASSUMED), pytest.warns(UserWarning, match="names none of the 1000 classes"):
        model = jm.models.load(tmp_path)
    demo = jm.models.demo()
    assert model.preprocessing == demo.preprocessing
    photo = Image.fromarray(skimage.data.chelsea())
    np.testing.assert_array_equal(model.preprocess(photo), demo.preprocess(photo))
    np.testing.assert_array_equal(model.params["classifier"]["kernel"][...], demo.params["classifier"]["kernel"][...])


def test_a_thousand_classes_without_names(tmp_path):
    tensors = vit_tensors("timm", dataclasses.replace(CONFIG, num_classes=1000))
    unnamed = {k: v for k, v in TIMM.items() if k != "label_names"} | {"num_classes": 1000}
    cfg = unnamed["pretrained_cfg"] | {"num_classes": 1000}

    def names(settings):
        return jm.models.load(write_folder(tmp_path, settings, tensors, None)).class_names

    with pytest.warns(UserWarning, match="names none of the 1000 classes, which are taken for those of ImageNet-1k"):
        assert names(unnamed | {"pretrained_cfg": cfg | {"tag": ""}}) == jm.models.imagenet_classes()
    mine = [f"mine {i}" for i in range(1000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(unnamed | {"pretrained_cfg": cfg | {"tag": "augreg_in21k_ft_in1k"}})[0] == "tench, Tinca tinca"
        tagged = unnamed | {"architecture": "vit_tiny_patch16_224.augreg_in1k", "pretrained_cfg": cfg | {"tag": ""}}
        assert names(tagged) == jm.models.imagenet_classes()
        for said in (
            {"label_names": mine},
            {"id2label": dict(enumerate(mine))},
            {"pretrained_cfg": cfg | {"labels": mine}},
        ):
            assert names(unnamed | said) == tuple(mine)
    with pytest.raises(jm.InputError, match="label_names names 999 classes, the weights have 1000"):
        names(unnamed | {"label_names": mine[1:]})


def test_keys_of_a_processor_that_nobody_knows_are_told(tmp_path):
    write_folder(tmp_path, HUGGINGFACE, vit_tensors(), PROCESSOR | {"image_meen": 0.1, "do_whiten": True})
    with pytest.warns(UserWarning, match="preprocessor_config.json: keys that are not .*: do_whiten, image_meen"):
        assert jm.models.load(tmp_path).preprocessing.mean == (0.5, 0.4, 0.3)


@pytest.mark.slow
def test_a_classifier_of_p2p_starts_with_the_numbers_that_are_said(tmp_path):
    write_folder(tmp_path, HUGGINGFACE, vit_tensors(), None)
    small = jm.p2p.ViTConfig(hidden_size=12, num_layers=2, num_heads=3, mlp_dim=20, patch_size=8)
    config = jm.p2p.Config(num_classes=3, image_size=16, num_groups=4, classifier=small)
    with pytest.raises(jm.InputError, match="does not say how a photo becomes"):
        jm.p2p.pretrained_classifier(tmp_path, config)
    _, found = jm.p2p.pretrained_classifier(tmp_path, config, preprocessing="half")
    assert (found.mean, found.std) == HALF


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cat.png"
    Image.fromarray(skimage.data.chelsea()[::8, ::8]).save(path)
    return path


def test_the_command_tells_and_takes_it(tmp_path, photo, capsys):
    folder = write_folder(
        tmp_path / "deit", BARE | {"architecture": "deit_tiny_patch16_224"}, vit_tensors("timm"), None
    )
    words = ["explain", str(photo), "--model", str(folder), "--until", "1", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"jaxmoxi: warning: {folder} has no preprocessor_config.json; {ASSUMED} 0.485, 0.456, 0.406")
    assert main([*words, "--preprocessing", "imagenet"]) == 0
    assert capsys.readouterr().err == ""
    (folder / "config.json").write_text(json.dumps(BARE | {"architecture": "vit_pico_patch8_16"}))
    assert main(words) == 2
    assert "--preprocessing imagenet|half|clip|FILE" in capsys.readouterr().err


def test_the_option_needs_a_model(photo, tmp_path, capsys):
    assert main(["explain", str(photo), "--preprocessing", "half", "--out", str(tmp_path)]) == 2
    assert "--preprocessing needs a --model of yours" in capsys.readouterr().err
