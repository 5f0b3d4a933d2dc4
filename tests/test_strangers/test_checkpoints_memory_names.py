"""State dicts as transformers has them in memory, against the files that it saves.

Needs PyTorch with transformers, and is skipped without.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.models.checkpoints.unwrap import unwrap
from jaxmoxi.models.checkpoints.weights import read_safetensors
from jaxmoxi.models.networks.naming import published_names
from jaxmoxi.models.networks.vit_config import canonical_names

torch = pytest.importorskip("torch", exc_type=ImportError)
transformers = pytest.importorskip("transformers", exc_type=ImportError)

VIT = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=16)
VIT |= dict(patch_size=8, num_labels=3)
SWIN = dict(image_size=32, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[2, 2], window_size=4, num_labels=3)
STAGES = dict(hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
NETWORKS = {
    "ViT": VIT,
    "DeiT": VIT,
    "DeiT teacher": VIT,
    "ViTMSN": VIT,
    "Beit": VIT | dict(use_relative_position_bias=True),
    "Beit shared": VIT | dict(use_shared_relative_position_bias=True, use_mean_pooling=False),
    "Dinov2": VIT,
    "Dinov2 gated": VIT | dict(use_swiglu_ffn=True),
    "Dinov2WithRegisters": VIT,
    "Dinov2WithRegisters gated": VIT | dict(use_swiglu_ffn=True),
    "Swin": SWIN,
    "ConvNext": STAGES | dict(num_stages=2),
    "ResNet": STAGES | dict(embedding_size=8),
    "RegNet": STAGES | dict(embedding_size=8, groups_width=8),
    "EfficientNet": dict(num_labels=3, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    "MobileNetV1": dict(num_labels=3, depth_multiplier=0.25),
    "MobileNetV2": dict(num_labels=3, depth_multiplier=0.35),
}


def network(name, sizes):
    kind, _, rest = name.partition(" ")
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}ForImageClassification{'WithTeacher' if rest == 'teacher' else ''}")(config)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_in_memory_become_those_of_files(tmp_path, name):
    model = network(name, NETWORKS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    memory = {n: t.numpy() for n, t in model.state_dict().items()}
    saved = canonical_names(read_safetensors(tmp_path / "model.safetensors"))  # of ViTMSN without its root
    found = published_names(memory, model.config.model_type)
    assert found.keys() == saved.keys()
    for n, tensor in found.items():
        np.testing.assert_array_equal(tensor, saved[n])
    assert published_names(saved, model.config.model_type).keys() == saved.keys()
    wrapped = unwrap({f"module._orig_mod.net.{n}": t for n, t in memory.items()}, "here")
    assert wrapped.prefix == "module._orig_mod.net."
    assert wrapped.tensors.keys() == memory.keys()


@pytest.mark.parametrize(
    "name",
    ["ViT", "DeiT teacher", "ViTMSN", *(pytest.param(n, marks=pytest.mark.slow) for n in ("DeiT", "MobileNetV2"))],
)
def test_a_state_dict_that_was_saved_from_memory(tmp_path, name):
    """What a user has beside a config.json: `torch.save(model.state_dict(), ...)`, wrapped by Lightning or not."""
    model = network(name, NETWORKS[name])
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = jm.models.load(tmp_path, preprocessing="half")
        (tmp_path / "model.safetensors").unlink()
        side = expected.config.image_size
        images = jnp.asarray(np.random.default_rng(0).normal(size=(2, side, side, 3)), jnp.float32)
        for state in (model.state_dict(), {"state_dict": {f"model.{n}": t for n, t in model.state_dict().items()}}):
            torch.save(state, tmp_path / "best.ckpt")
            found = jm.models.load(tmp_path, preprocessing="half")
            np.testing.assert_array_equal(found.logits(images), expected.logits(images))
