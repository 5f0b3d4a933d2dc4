"""Every entry point lowers for TPUs and GPUs, from any machine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxmoxi as jm
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import cnn
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.models.preprocess import Preprocessing
from support.games import vit_classifier

CONFIG = VisionTransformerConfig(
    image_size=40, patch_size=8, hidden_size=32, num_layers=3, num_heads=2, mlp_dim=64, num_classes=5
)
PLAYERS = 25


def games():
    model = vit_classifier(CONFIG)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(40, 40, 3)), jnp.float32)
    regions = jm.grid_regions(40, 40, rows=5, cols=5)
    return {
        "tokens": jm.token_value_fn(model, image, 1),
        "tokens in bfloat16": jm.token_value_fn(model.astype("bfloat16"), image, 1),
        "pixels": jm.pixel_value_fn(model.logits, image, 1, regions, fill="blur"),
    }


GAMES = games()
ENTRY_POINTS = {
    "evaluate": lambda v: jm.evaluate(v, jnp.ones((40, PLAYERS), bool)),
    "greedy_insertion": lambda v: jm.greedy_insertion(v, PLAYERS, stop=jm.Stop(flip=True)),
    "greedy_deletion": lambda v: jm.greedy_deletion(v, PLAYERS),
    "single_player_order": lambda v: jm.single_player_order(v, PLAYERS),
    "self_context_shapley": lambda v: jm.self_context_shapley(v, PLAYERS),
    "full_context_shapley": lambda v: jm.full_context_shapley(v, PLAYERS),
    "sampled_shapley": lambda v: jm.sampled_shapley(jax.random.key(0), v, PLAYERS, num_samples=2).values,
    "pairwise_interactions": lambda v: jm.pairwise_interactions(v, PLAYERS),
    "insertion_curve": lambda v: jm.insertion_curve(v, jnp.arange(PLAYERS)),
    "deletion_curve": lambda v: jm.deletion_curve(v, jnp.arange(PLAYERS)),
}


def lowered(fn, *args):
    exported = export.export(jax.jit(fn), platforms=["tpu", "cuda"])(*args)
    assert set(exported.platforms) == {"tpu", "cuda"}
    return exported.mlir_module()


@pytest.mark.parametrize("name", ENTRY_POINTS)
@pytest.mark.parametrize("game", GAMES)
def test_entry_points(name, game):
    assert "stablehlo" in lowered(lambda v: jax.tree.leaves(ENTRY_POINTS[name](v)), GAMES[game])


def test_several_images():
    vs = [GAMES["tokens"]] * 2

    def batched(tokens):
        import dataclasses

        def one(tokens):
            return jm.greedy_insertion(dataclasses.replace(vs[0], tokens=tokens), PLAYERS).order

        return jax.vmap(one)(tokens)

    assert "stablehlo" in lowered(batched, jax.tree.map(lambda *t: jnp.stack(t), *(v.tokens for v in vs)))


def test_on_a_mesh():
    mesh = jax.make_mesh((8,), ("coalitions",))
    text = lowered(lambda v: jm.greedy_insertion(v, PLAYERS).order, jm.shard_coalitions(GAMES["tokens"], mesh))
    assert "all_gather" in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convolutional_classifiers(dtype):
    config = cnn.InvertedResidualConfig("efficientnet_lite0", num_classes=4)
    names = cnn.expected_tensors(config, "timm")
    tensors = {n: np.ones(s, np.float32) for n, s in names.items()}
    state = cnn.from_tensors(config, tensors, source="test")
    preprocessing = Preprocessing(resize=(64, 64))
    model = Classifier(state, config, preprocessing, ("a", "b", "c", "d")).astype(dtype)
    v = jm.pixel_value_fn(model.logits, jnp.zeros((64, 64, 3)), 0, jm.grid_regions(64, 64, rows=2, cols=2))
    text = lowered(lambda v: jm.greedy_insertion(v, 4).order, v)
    assert ("bf16" in text) == (dtype == "bfloat16")
