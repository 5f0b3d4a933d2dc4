"""Many devices answer as one does."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.moxi.greedy import run_stage
from support.games import SizedGame, ThresholdGame, table_game, vit_classifier

CONFIG = VisionTransformerConfig(
    image_size=40, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_dim=64, num_classes=5
)


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() == 8
    return jax.make_mesh((8,), ("coalitions",))


@pytest.fixture(scope="module")
def game():
    model = vit_classifier(CONFIG)
    image = jnp.asarray(np.random.default_rng(1).normal(size=(40, 40, 3)), jnp.float32)
    return jm.token_value_fn(model, image, 2)


@pytest.mark.parametrize("find", [jm.greedy_insertion, jm.greedy_deletion])
def test_searches_agree(mesh, game, find):
    one, many = find(game, 25), find(jm.shard_coalitions(game, mesh), 25)
    np.testing.assert_array_equal(one.order, many.order)
    np.testing.assert_allclose(one.values, many.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(one.leads, many.leads)
    assert one.num_evaluations == many.num_evaluations == 25 * 26 // 2


@pytest.mark.parametrize("count", [1, 7, 8, 20])
@pytest.mark.parametrize("batch_size", [None, 3, 16])
def test_any_number_of_coalitions(mesh, count, batch_size):
    v, table = table_game(5)
    masks = jnp.asarray(np.random.default_rng(0).random((count, 5)) < 0.5)
    values = jm.evaluate(jm.shard_coalitions(v, mesh), masks, batch_size=batch_size)
    np.testing.assert_array_equal(values, table[np.asarray(masks) @ 2 ** np.arange(5)])


def test_every_device_takes_its_share(mesh):
    """The function sees an eighth of the rows, with nothing left over."""
    shapes = []

    def v(masks):
        shapes.append(masks.shape)
        return masks.sum(1) * 1.0

    jm.evaluate(jm.shard_coalitions(v, mesh), jnp.ones((32, 4), bool), batch_size=32)
    assert (4, 4) in shapes
    assert max(shapes) == (4, 4)


def test_no_collective_inside_a_forward(mesh, game):
    """One gather for each part of a readout, none of the size of anything inside the network."""
    v = jm.shard_coalitions(game, mesh)
    text = jax.jit(lambda v, masks: v.readout(masks)).lower(v, jnp.ones((16, 25), bool)).compile().as_text()
    gathers = [line for line in text.splitlines() if " all-gather(" in line or " all-gather-start(" in line]
    assert 1 <= len(gathers) <= 3
    assert not any(word in text for word in ("all-reduce(", "all-to-all(", "collective-permute("))


def test_it_can_do_what_the_function_inside_can(mesh, game):
    spread = jm.shard_coalitions(game, mesh)
    masks = jnp.asarray(np.random.default_rng(0).random((5, 25)) < 0.5)
    margin = jm.evaluate(game.with_payoff("margin"), masks)
    np.testing.assert_allclose(jm.evaluate(spread.with_payoff("margin"), masks), margin, atol=1e-5)
    relaxed = jax.jit(lambda v, gates: v.relaxed(gates))(spread, masks * 1.0)
    np.testing.assert_allclose(relaxed, jm.evaluate(game, masks), atol=1e-5)
    plain = jm.shard_coalitions(table_game(5)[0], mesh)
    assert plain.with_payoff("logit") is None
    assert not plain.gated


def test_more_devices_take_larger_chunks(mesh, game):
    assert jm.choose_batch_size(jm.shard_coalitions(game, mesh), 25) == 8 * jm.choose_batch_size(game, 25)


def test_some_axes_of_a_mesh(game):
    mesh = jax.make_mesh((2, 4), ("images", "coalitions"))
    v = jm.shard_coalitions(game, mesh, axes="coalitions")
    assert v.num_shards == 4
    np.testing.assert_array_equal(jm.greedy_insertion(v, 25).order, jm.greedy_insertion(game, 25).order)


def test_what_the_game_can_tell_is_passed_on(mesh):
    v = jm.shard_coalitions(ThresholdGame(jnp.arange(4.0), jnp.float32(-3.5)), mesh)
    assert jm.greedy_insertion(v, 4, stop=jm.Stop(flip=True)).num_steps == 2
    assert v.leads(jnp.ones((3, 4), bool)).all()
    sized = jm.shard_coalitions(SizedGame(jnp.arange(20.0)), mesh)
    assert sized.sized
    np.testing.assert_array_equal(jm.greedy_insertion(sized, 20).order, np.arange(20)[::-1])
    plain = jm.shard_coalitions(table_game(3)[0], mesh)
    with pytest.raises(ValueError, match="`flip` needs to know"):
        jm.greedy_insertion(plain, 3, stop=jm.Stop(flip=True))
    with pytest.raises(ValueError, match="cannot tell who leads"):
        plain.leads(jnp.ones((1, 3), bool))


def test_other_algorithms(mesh, game):
    v = jm.shard_coalitions(game, mesh)
    np.testing.assert_allclose(jm.self_context_shapley(v, 25), jm.self_context_shapley(game, 25), atol=1e-5)
    order = jnp.arange(25)
    np.testing.assert_allclose(jm.deletion_curve(v, order).values, jm.deletion_curve(game, order).values, atol=1e-5)


def test_errors(mesh, game):
    with pytest.raises(ValueError, match=r"expected axes of the mesh, which has \('coalitions',\); got \('x',\)"):
        jm.shard_coalitions(game, mesh, axes="x")
    with pytest.raises(ValueError, match="25 players; got num_players"):
        jm.greedy_insertion(jm.shard_coalitions(game, mesh), 24)


ON_EVERY_CORE = """
import jax, jax.numpy as jnp, jaxmoxi as jm
mesh = jm.local_mesh(num_cores=3)
assert (mesh.axis_names, mesh.size, jax.device_count()) == (("devices",), 3, 3), mesh
assert jm.local_mesh(num_cores=3) == mesh  # asked again, it is the same
weights = jax.random.normal(jax.random.key(0), (10, 10))
v = lambda masks: jnp.einsum("cp,pq,cq->c", masks * 1.0, weights, masks * 1.0)
print(jm.greedy_insertion(jm.shard_coalitions(v, mesh), 10).order.tolist())
print(jm.greedy_insertion(v, 10).order.tolist())
"""


def test_local_mesh_makes_devices_of_cores():
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", ON_EVERY_CORE], env=own, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    sharded, alone = done.stdout.splitlines()
    assert sharded == alone
    assert sorted(json.loads(alone)) == list(range(10))


def test_local_mesh_comes_first():
    late = "import jax, jaxmoxi as jm; jax.devices(); jm.local_mesh(num_cores=3)"
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", late], env=own, capture_output=True, text=True, timeout=120)
    assert "JAX has started already, with 1 CPU device(s) where 3 are asked for; call local_mesh before" in done.stderr


def test_local_mesh_leaves_simulated_devices_as_they_are():
    assert jm.local_mesh().size == jm.local_mesh(num_cores=3).size == 8
    with pytest.raises(ValueError, match="num_cores must be at least 1; got 0"):
        jm.local_mesh(num_cores=0)


def test_a_sharded_search_compiles_each_stage_once(mesh, game):
    """The state starts where compiled programs leave it, so that the second step of a stage finds its program."""
    v = jm.shard_coalitions(game, mesh)
    at_once = jm.greedy_insertion(v, 25)
    before = run_stage._cache_size()
    stepped = jm.greedy_insertion(v, 25, callback=lambda info: None)
    assert run_stage._cache_size() == before
    np.testing.assert_array_equal(stepped.order, at_once.order)
