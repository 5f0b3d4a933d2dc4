import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.hardware import Hardware, planned_for
from jaxmoxi.pytrees import pack
from support.games import lookup, table_game


def test_any_number_of_coalitions_in_any_chunk():
    v, table = table_game(6, 1)
    for count in (0, 1, 5, 64, 131):
        masks = jnp.asarray(np.random.default_rng(count).random((count, 6)) < 0.5)
        expected = table[np.asarray(masks) @ (2 ** np.arange(6))]
        for batch_size in (None, 1, 7, 64, 1000):
            np.testing.assert_array_equal(jm.evaluate(v, masks, batch_size=batch_size), expected)


def test_a_value_does_not_depend_on_its_batch():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(48, 6)), jnp.float32)
    image = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4, 3)), jnp.float32)
    v = jm.pixel_value_fn(
        lambda x: jnp.tanh(x.reshape(len(x), -1) @ weights), image, 0, jm.grid_regions(4, 4, rows=4, cols=4)
    )
    masks = jnp.asarray(np.random.default_rng(2).random((50, 16)) < 0.5)
    alone = jnp.concatenate([jm.evaluate(v, m[None]) for m in masks])
    shuffle = np.random.default_rng(3).permutation(50)
    np.testing.assert_allclose(jm.evaluate(v, masks, batch_size=8), alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jm.evaluate(v, masks[shuffle])[np.argsort(shuffle)], alone, rtol=1e-5, atol=1e-6)


def test_eager_jit_vmap():
    tables = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)), jnp.float32)
    masks = jnp.asarray(np.random.default_rng(1).random((10, 4)) < 0.5)

    def run(table):
        return jm.evaluate(jax.tree_util.Partial(lookup, table), masks, batch_size=4)

    eager = jnp.stack([run(t) for t in tables])
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(tables), eager)


def test_one_chunk_shape_whatever_the_remainder():
    shapes = []

    def v(masks):
        shapes.append(masks.shape)
        return masks.sum(1) * 1.0

    jm.evaluate(v, jnp.ones((10, 3), bool), batch_size=4)
    assert set(shapes) == {(3, 3), (1, 3), (4, 3)}  # the rows by which the function is tried, then chunks


def test_chosen_batch_size_follows_the_memory(monkeypatch):
    def v(masks):  # about 4 MB a coalition
        return jnp.tanh(jnp.broadcast_to(masks.sum(1)[:, None], (len(masks), 10**6)) * 1.0).sum(1)

    module = sys.modules["jaxmoxi.games.evaluation"]
    monkeypatch.setattr(module, "_CPU_MEMORY", 20 * 10**6)
    with planned_for(Hardware("cpu", free_bytes=400 * 10**6)):
        size = jm.choose_batch_size(v, 5)
    assert 4 <= size <= 25
    assert size & (size - 1) == 0
    with planned_for(Hardware("cpu", free_bytes=4 * 10**6)):
        assert jm.choose_batch_size(v, 5) in (2, 4)  # as many as _CPU_MEMORY holds
        monkeypatch.setattr(module, "_CPU_MEMORY", 10**6)
        assert jm.choose_batch_size(v, 5) == 1
    with planned_for(Hardware("tpu", free_bytes=4 * 10**6)):
        assert jm.choose_batch_size(v, 5) == 1
    with planned_for(Hardware("tpu", free_bytes=16 * 10**9)):
        assert jm.choose_batch_size(v, 5) == 32


def test_out_of_memory_says_what_to_try():
    def v(masks):  # 8 TB a coalition, used in an order that no fusion can avoid
        count = jax.lax.broadcasted_iota(jnp.float32, (len(masks), 2 * 10**12), 1)
        return jnp.sort(jnp.sin(count + masks.sum(1)[:, None]), axis=1)[:, 0]

    with pytest.raises(jm.OutOfMemoryError, match="out of memory with batch_size=4: try batch_size=2"):
        jm.evaluate(v, jnp.ones((8, 3), bool), batch_size=4)
    with pytest.raises(jm.OutOfMemoryError, match="out of memory with batch_size=1: a single coalition does not fit"):
        jm.greedy_insertion(v, 3)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    v, _ = table_game(3)
    with pytest.raises(ValueError, match=r"expected masks bool\[C, P\], True = visible; got int32"):
        jm.evaluate(v, np.ones((2, 3), np.int32))
    with pytest.raises(ValueError, match=r"expected masks bool\[C, P\]"):
        jm.evaluate(v, np.ones(3, bool))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        jm.evaluate(v, np.ones((2, 3), bool), batch_size=-1)

    class Unhashable:
        __hash__ = None

        def __call__(self, masks):
            return masks.sum(1)

    with pytest.raises(TypeError, match="neither an array nor hashable"):
        pack(Unhashable())
