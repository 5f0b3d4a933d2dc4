import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxmoxi as jm
from jaxmoxi.models.networks import cnn, vit
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from support.games import golden_tensor, vit_classifier

CONFIG = VisionTransformerConfig(
    image_size=32, patch_size=8, hidden_size=64, num_layers=2, num_heads=1, mlp_dim=20, num_classes=4
)
SETTINGS = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 20,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
    "id2label": {"0": "ant", "1": "bee", "2": "cow", "3": "dog"},
}
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)


def tensors_for(naming="vit", config=CONFIG):
    return {n: golden_tensor("any", n, s, 1.5) for n, s in vit.expected_tensors(config, naming).items()}


def write(folder, settings=SETTINGS, tensors=None, **files):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    return folder


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 32}


def test_huggingface_folder(tmp_path):
    processor = {"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True, "resample": 3}
    model = jm.models.load(write(tmp_path / "vit", tensors=tensors_for(), preprocessor_config=processor))
    assert model.config == CONFIG
    assert model.class_names == ("ant", "bee", "cow", "dog")
    assert model.name == "vit"
    assert model.token_grid == (4, 4)
    assert model.preprocessing.resize == 40
    np.testing.assert_array_equal(model.logits(IMAGES), vit_classifier(CONFIG).logits(IMAGES))
    photo = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    assert model.preprocess(photo).shape == (32, 32, 3)
    assert model.crop(photo).dtype == np.uint8


def test_shards(tmp_path):
    tensors = tensors_for()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    folder = write(tmp_path, preprocessor_config=HALF, **{"model.safetensors.index": {"weight_map": files}})
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, folder / file)
    np.testing.assert_array_equal(jm.models.load(folder).logits(IMAGES), vit_classifier(CONFIG).logits(IMAGES))


@pytest.mark.parametrize("teacher", [False, True])
def test_deit(tmp_path, teacher):
    kind = "DeiTForImageClassificationWithTeacher" if teacher else "DeiTForImageClassification"
    settings = SETTINGS | {"model_type": "deit", "architectures": [kind], "num_labels": 4}
    config = VisionTransformerConfig(**{**CONFIG.__dict__, "distilled": True, "teacher": teacher})
    with pytest.warns(UserWarning, match="assuming the preprocessing of the published weights .* mean 0.485"):
        model = jm.models.load(write(tmp_path, settings, tensors_for("deit", config)))
    assert model.config == config
    tokens = model.embed_tokens(IMAGES[0])
    whole = model.encode_tokens(jax.tree.map(lambda t: t[None], tokens), jnp.ones((1, 16), bool))
    np.testing.assert_allclose(whole, model.logits(IMAGES[:1]), rtol=1e-4, atol=1e-5)


def test_timm_folder(tmp_path):
    settings = {
        "architecture": "vit_tiny_patch8_32",
        "num_classes": 4,
        "model_args": {"num_heads": 1},
        "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    model = jm.models.load(write(tmp_path, settings, tensors_for("timm")))
    assert model.config == VisionTransformerConfig(**{**CONFIG.__dict__, "norm_eps": 1e-6})
    assert model.preprocessing.resize == 35
    assert model.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert model.logits(IMAGES).shape == (2, 4)


def test_torchvision_folder_without_preprocessing(tmp_path):
    config = cnn.InvertedResidualConfig("mobilenet_v2", num_classes=4)
    names = cnn.expected_tensors(config, "torchvision")
    tensors = {name: golden_tensor("folder", name, shape, 0.1) for name, shape in names.items()}
    tensors |= {name: np.ones_like(t) for name, t in tensors.items() if name.endswith("running_var")}
    with pytest.warns(UserWarning, match="has no preprocessor_config.json; assuming .* 0.485, 0.456, 0.406"):
        model = jm.models.load(write(tmp_path, {"model_type": "mobilenet_v2"}, tensors))
    assert (model.preprocessing.resize, model.preprocessing.crop) == (256, (224, 224))
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder .*nowhere; expected a folder with config.json"):
        jm.models.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        jm.models.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no weights; expected one of model.safetensors"):
        jm.models.load(write(tmp_path / "empty"))
    bad = write(tmp_path / "bad", tensors=tensors_for() | {"classifier.weight": np.zeros((4, 65), np.float32)})
    with pytest.raises(ValueError, match=r"classifier.weight \(expected \[4, 64\], found \[4, 65\]\)"):
        jm.models.load(bad, preprocessing="half")
    (bad / "model.safetensors").write_bytes((bad / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        jm.models.load(bad)
    (bad / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not readable JSON"):
        jm.models.load(bad)
    other = write(tmp_path / "other", {"model_type": "bert"}, tensors_for())
    with pytest.raises(
        ValueError, match="expected a model_type of .*mobilenet_v2, .*vit, deit, vit_msn, or .* vit_.* got 'bert'"
    ):
        jm.models.load(other)
    sized = write(tmp_path / "sized", tensors=tensors_for(), preprocessor_config={"size": 48})
    with pytest.raises(ValueError, match=r"makes images of \(48, 48\) pixels, the network takes 32 x 32"):
        jm.models.load(sized)


@pytest.mark.parametrize(
    ("problem", "link"),
    [("multi_label_classification", "sigmoid"), ("single_label_classification", "softmax"), (None, "softmax")],
)
def test_the_problem_decides_on_the_link(tmp_path, problem, link):
    settings = SETTINGS | {"problem_type": problem}
    model = jm.models.load(write(tmp_path, settings, tensors_for()), preprocessing="half")
    assert model.link == link
    assert model.astype("bfloat16").link == link


@pytest.mark.parametrize(
    ("problem", "labels", "message"),
    [
        ("regression", 4, "expected a classifier; got problem_type 'regression'"),
        ("ranking", 4, "expected problem_type single_label_classification or .*; got 'ranking'"),
        ([1], 4, "expected problem_type single_label_classification"),
        (None, 1, "got one logit, whose softmax is always 1"),
        ("single_label_classification", 1, "got one logit, whose softmax is always 1"),
    ],
)
def test_problems_that_are_no_classification(tmp_path, problem, labels, message):
    config = dataclasses.replace(CONFIG, num_classes=labels)
    settings = SETTINGS | {"problem_type": problem, "id2label": {str(i): f"c{i}" for i in range(labels)}}
    with pytest.raises(jm.InputError, match=message):
        jm.models.load(write(tmp_path, settings, tensors_for(config=config)), preprocessing="half")


def test_one_logit_with_a_sigmoid_is_a_classifier(tmp_path):
    config = dataclasses.replace(CONFIG, num_classes=1)
    settings = SETTINGS | {"problem_type": "multi_label_classification", "id2label": {"0": "cat"}}
    model = jm.models.load(write(tmp_path, settings, tensors_for(config=config)), preprocessing="half")
    assert (model.link, model.class_names) == ("sigmoid", ("cat",))
