"""A network is added by one file: here such a file is written beside the others and read for a folder."""

import dataclasses
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import jaxmoxi as jm
from jaxmoxi.models import networks
from jaxmoxi.models.networks import registry
from jaxmoxi.models.networks.cnn import InvertedResidualConfig, InvertedResidualNet
from jaxmoxi.models.networks.registry import Family, family_of, find_family, register
from jaxmoxi.models.networks.vit import ViT

TOY = """
import dataclasses
import functools

from flax import nnx

from jaxmoxi.models.checkpoints.tensors import check_tensors, fill_state
from jaxmoxi.models.networks.base import ClassifierNetwork, Features
from jaxmoxi.models.networks.registry import Family, register
from jaxmoxi.models.preprocess import Preprocessing


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    num_classes: int
    image_size: int = 8
    num_channels: int = 3


class ToyNet(ClassifierNetwork):
    float32_parameters = frozenset({"head"})

    def __init__(self, config, *, rngs):
        self.head = nnx.Linear(3, config.num_classes, rngs=rngs)

    def features(self, images):
        return Features(images)

    def classify(self, features):
        return self.head(features.maps.mean((1, 2)))


def config_from_settings(settings, tensors):
    return ToyConfig(len(tensors["head.bias"]))


def from_tensors(config, tensors, *, source):
    check_tensors({"head.weight": (config.num_classes, 3), "head.bias": (config.num_classes,)}, tensors, source)
    arrays = {"kernel": tensors["head.weight"].T, "bias": tensors["head.bias"]}
    return fill_state(functools.partial(ToyNet, config), lambda path, shape: arrays[path[-1]])


register(
    Family(
        network=ToyNet,
        config=ToyConfig,
        model_types=("one_file",),
        architectures=("one_file_*",),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        preprocessing=lambda side: Preprocessing(resize=(side, side)),
    )
)
"""


@pytest.fixture
def toy_file(tmp_path, monkeypatch):
    """A file of a network beside the package's own."""
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "toy_network.py").write_text(TOY)
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(folder)])
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    yield
    sys.modules.pop("jaxmoxi.models.networks.toy_network", None)


def write(folder, settings):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"head.weight": weight, "head.bias": np.ones(2, np.float32)}, folder / "model.safetensors")
    return folder, weight


@pytest.mark.parametrize("settings", [{"model_type": "one_file"}, {"architecture": "one_file_small"}])
def test_one_file_adds_a_network(tmp_path, toy_file, settings):
    folder, weight = write(tmp_path / "model", settings)
    with pytest.warns(UserWarning, match="assuming the preprocessing of the published weights"):
        model = jm.models.load(folder)
    images = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 3)), jnp.float32)
    expected = np.asarray(images).mean((1, 2)) @ weight.T + 1
    np.testing.assert_allclose(model.logits(images), expected, rtol=1e-5)
    np.testing.assert_allclose(model.classify(model.features(images)), expected, rtol=1e-5)
    np.testing.assert_allclose(model.astype("bfloat16").logits(images), expected, rtol=1e-5)  # all of it is its head
    assert (model.name, model.class_names, model.preprocessing.resize) == ("model", ("class 0", "class 1"), (8, 8))
    assert model.token_grid is None
    v = jm.pixel_value_fn(model.logits, images[0], 1, jm.grid_regions(8, 8, rows=2, cols=2))
    assert sorted(jm.greedy_insertion(v, 4).order.tolist()) == [0, 1, 2, 3]


def test_an_unknown_network_is_told_all_families(tmp_path, toy_file):
    folder, _ = write(tmp_path / "model", {"model_type": "bert"})
    with pytest.raises(
        jm.InputError,
        match=r"json: expected a model_type of .*one_file, .* an architecture .*one_file_\*.*got 'bert'",
    ):
        jm.models.load(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(jm.InputError, match="got 'neither key'"):
        jm.models.load(folder)


def family(*names):
    def unused(*_):
        raise NotImplementedError

    return Family(ViT, dataclasses.make_dataclass("Config", []), names[:1], names[1:], unused, unused, unused)


def test_the_name_that_fits_best_decides():
    known = (family("vit", "vit_*"), family("vit_mae", "vit_*_reg*"))
    assert find_family("vit", known) is known[0]
    assert find_family("vit_small_patch16_224", known) is known[0]
    assert find_family("vit_mae", known) is known[1]
    assert find_family("vit_small_reg4", known) is known[1]
    assert find_family("deit", known) is None
    assert find_family("", known) is None


def test_a_name_belongs_to_one_family(toy_file):
    with pytest.raises(ValueError, match=r"ViT and ViT both go by vit_\*"):
        register(family("other", "vit_*"))


def test_configs_of_no_family_are_refused():
    assert family_of(InvertedResidualConfig("mobilenet_v2")).network is InvertedResidualNet
    with pytest.raises(jm.InputError, match="of a registered network .*VisionTransformerConfig.*; got OtherConfig"):
        family_of(
            dataclasses.make_dataclass(
                "OtherConfig", [(name, int) for name in ("image_size", "num_channels", "num_classes")]
            )(8, 3, 2)
        )


def test_what_a_network_lacks_is_said():
    net = InvertedResidualNet(InvertedResidualConfig("mobilenet_v2", width=0.35), rngs=nnx.Rngs(0))
    with pytest.raises(jm.InputError, match="InvertedResidualNet has no tokens; take another model"):
        net.embed(jnp.zeros((1, 32, 32, 3)))
