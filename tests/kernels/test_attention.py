from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.errors import InputError
from jaxmoxi.kernels import short_attention
from jaxmoxi.kernels.attention import FORMS, attention


def rows(batch, count, heads, head, dtype=jnp.float32, seed=0):
    """Queries, keys and values, and which tokens are there: of each row the first, and some."""
    rng = np.random.default_rng(seed)
    qkv = jnp.asarray(rng.normal(size=(batch, count, 3 * heads * head)) * 1.5, dtype)
    present = rng.random((batch, count)) < 0.6
    present[:, 0] = True
    return qkv, jnp.asarray(present)


def by_hand(qkv, present, heads):
    """Softmax attention in float64, over the tokens that are there alone."""
    qkv, present = np.asarray(qkv, np.float64), np.asarray(present)
    out = np.zeros((*qkv.shape[:2], qkv.shape[2] // 3))
    head = out.shape[2] // heads
    for b, row in enumerate(qkv):
        for h in range(heads):
            q, k, v = (row[:, part * out.shape[2] + h * head :][:, :head] for part in range(3))
            weights = np.exp(q @ k[present[b]].T / head**0.5)
            out[b, :, h * head :][:, :head] = weights / weights.sum(1, keepdims=True) @ v[present[b]]
    return out


def kernel(qkv, present, heads):
    """The Pallas kernel in JAX's interpreter."""
    return short_attention.attend(qkv, present, heads, True)


# Heads that share a register and heads that fill one, rows that do not divide evenly, an odd number of heads.
SHAPES = [(5, 9, 3, 64), (3, 17, 2, 32), (2, 6, 1, 128), (9, 5, 5, 16), (1, 33, 4, 80)]


@pytest.mark.parametrize(("batch", "count", "heads", "head"), SHAPES)
def test_every_form_is_attention_over_the_tokens_that_are_there(batch, count, heads, head):
    qkv, present = rows(batch, count, heads, head)
    expected = by_hand(qkv, present, heads)
    for form in ("heads", "batched", None, "pallas"):
        found = jax.jit(partial(attention, num_heads=heads, form=form))(qkv, present)
        np.testing.assert_allclose(found, expected, atol=3e-6, err_msg=str(form))


@pytest.mark.parametrize("form", ["heads", "batched", "pallas"])
def test_bfloat16_is_near_float32(form):
    qkv, present = rows(4, 12, 3, 64, jnp.bfloat16)
    run = kernel if form == "pallas" else partial(attention, form=form)
    found = run(qkv, present, 3)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), by_hand(qkv, present, 3), atol=0.03)


def test_absent_tokens_leave_no_trace_in_the_kernel():
    qkv, present = rows(3, 8, 2, 64)
    other = jnp.where(present[:, :, None], qkv, 1e4)
    there = np.asarray(present)
    np.testing.assert_array_equal(
        np.asarray(kernel(qkv, present, 2))[there], np.asarray(kernel(other, present, 2))[there]
    )


def test_the_kernel_under_vmap_and_its_gradients_are_the_plain_ones():
    qkv, present = rows(4, 7, 2, 64)
    plain = partial(attention, num_heads=2, form="batched")
    images = qkv.reshape(2, 2, 7, -1), present.reshape(2, 2, 7)
    mapped = jax.vmap(lambda q, p: kernel(q, p, 2))(*images)
    np.testing.assert_allclose(mapped.reshape(4, 7, -1), plain(qkv, present), atol=3e-6)
    ours, theirs = (
        jax.grad(lambda q, run=run: jnp.sum(jnp.sin(run(q))))(qkv)
        for run in (lambda q: kernel(q, present, 2), lambda q: plain(q, present))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    moved = jax.jvp(lambda q: kernel(q, present, 2), (qkv,), (qkv,))[1]
    np.testing.assert_allclose(moved, jax.jvp(lambda q: plain(q, present), (qkv,), (qkv,))[1], atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_weights_between_absent_and_there_and_biases(form):
    qkv, present = rows(3, 6, 2, 16)
    gates = jnp.where(present, 0.3, 0.0)
    np.testing.assert_allclose(attention(qkv, gates, 2, form=form), by_hand(qkv, present, 2), atol=3e-6)
    bias = lambda head: jnp.full((3, 6, 6), float(head)).at[:, :, 2].add(head + 1.0)  # noqa: E731
    found, expected = (attention(qkv, present, 2, bias=bias, form=f) for f in (form, "heads"))
    np.testing.assert_allclose(found, expected, atol=3e-6)
    assert float(jnp.max(jnp.abs(found - attention(qkv, present, 2, form=form)))) > 0.01


def test_only_the_form_of_a_platform_is_in_its_program():
    qkv, present = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in rows(2, 9, 3, 64, jnp.bfloat16))
    run = jax.jit(partial(attention, num_heads=3))
    texts = {p: run.trace(qkv, present).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu", "cuda")}
    kernels = {p: text.count("tpu_custom_call") for p, text in texts.items()}
    assert kernels["tpu"] >= 1
    assert kernels["cpu"] == kernels["cuda"] == 0
    products = {p: text.count("dot_general") for p, text in texts.items()}
    assert products["cpu"] == 6  # two for each head
    assert products["cuda"] == 2
    explicit = jax.jit(partial(attention, num_heads=3, form="heads")).trace(qkv, present)
    assert "tpu_custom_call" not in explicit.lower(lowering_platforms=("tpu",)).as_text()


# Shapes that the compiler of a v5e refused (as "looped": without a loop between strips of heads), and took.
@pytest.mark.parametrize(
    ("count", "width", "heads", "dtype", "expected"),
    [
        (1024, 576, 9, jnp.bfloat16, None),
        (901, 768, 12, jnp.bfloat16, None),
        (1500, 384, 6, jnp.bfloat16, None),
        (577, 768, 12, jnp.float32, None),
        (577, 1024, 16, jnp.bfloat16, (1, 1, True)),
        (640, 512, 8, jnp.float32, (1, 1, True)),
        (640, 96, 3, jnp.bfloat16, (4, 1, False)),
        (197, 768, 12, jnp.bfloat16, (2, 1, False)),
        (197, 192, 3, jnp.bfloat16, (8, 4, False)),
    ],
)
def test_the_kernel_takes_what_fits_the_memory_of_a_chip(count, width, heads, dtype, expected):
    plan = short_attention.plan_of((64, count, 3 * width), dtype, heads)
    assert plan == expected
    assert short_attention.serves((64, count, 3 * width), dtype, heads) is (expected is not None)


def test_other_numbers_and_widths_are_not_the_kernels():
    assert not short_attention.serves((4, 9, 576), jnp.float16, 3)
    assert not short_attention.serves((4, 9, 576), jnp.bfloat16, 5)


def test_a_loop_over_strips_of_heads_changes_nothing(monkeypatch):
    qkv, present = rows(3, 17, 4, 64)
    whole = kernel(qkv, present, 4)
    monkeypatch.setattr(short_attention, "_MEMORY", 230_000)
    assert short_attention.plan_of(qkv.shape, qkv.dtype, 4).looped
    np.testing.assert_allclose(kernel(qkv, present, 4), whole, atol=1e-6)
    np.testing.assert_allclose(whole, by_hand(qkv, present, 4), atol=3e-6)


@pytest.mark.parametrize("precision", ["highest", "high", "tensorfloat32", "bfloat16", None])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_precision_that_jax_can_be_asked_for_lowers(precision, dtype):
    operands = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in rows(2, 9, 3, 64, dtype)]
    with jax.default_matmul_precision(precision):
        traced = jax.jit(partial(attention, num_heads=3)).trace(*operands)
    jaxpr = str(traced.jaxpr)  # what is asked for is taken when attention is traced, not when it is compiled
    assert f"precise={precision not in ('bfloat16', None)}" in jaxpr
    assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("batch", [1, 2, 7, 12, 64, 257])
@pytest.mark.parametrize("row_bytes", [10**3, 10**6, 10**7])
def test_a_step_of_the_kernel_takes_rows_that_fit(batch, row_bytes):
    count = short_attention.rows_of(batch, row_bytes)
    assert 1 <= count <= batch
    assert count == 1 or count * row_bytes <= 2 * 2**20


def test_an_unknown_form():
    qkv, present = rows(1, 3, 1, 8)
    with pytest.raises(
        InputError, match=r"expected a form of attention of heads, batched, pallas, or None; got 'flash'"
    ):
        attention(qkv, present, 1, form="flash")


def test_the_kernel_stays_out_of_programs_that_the_compiler_divides():
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("x")
    operands = jax.device_put(rows(4, 9, 3, 64, jnp.bfloat16), jax.sharding.NamedSharding(mesh, split))
    run = partial(attention, num_heads=3)

    def kernels(f):
        return jax.jit(f).trace(*operands).lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call")

    spread = partial(jax.shard_map, run, mesh=mesh, in_specs=(split, split), out_specs=split)
    assert kernels(run) == 0
    assert kernels(spread(check_vma=False)) >= 1
    assert kernels(spread(check_vma=True)) == 0
