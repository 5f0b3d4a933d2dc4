"""What is called outside `jit` compiles once for each structure and shape, and says what it says inside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import p2p
from jaxmoxi.compiling import compiled
from jaxmoxi.pytrees import record, static
from support.search import tiny_model
from support.trainer import CONFIG

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: COMPILED.append(name) if name.endswith("backend_compile_duration") else None
)


@pytest.fixture(scope="module")
def photos():
    keys = jax.random.split(jax.random.key(7), 3)
    return [jax.random.uniform(key, (32, 32, 3), minval=-1, maxval=1) for key in keys]


def programs(run):
    before = len(COMPILED)
    jax.block_until_ready(run())
    return len(COMPILED) - before


def asked(photo, other, seed):
    """Everything that a game, and its model, are asked outside of any trace."""
    model = tiny_model()[0]
    regions = jm.grid_regions(32, 32, rows=2, cols=2)
    masks = jax.random.bernoulli(jax.random.key(seed), 0.5, (3, 4))
    drawn = jm.games.removals(jax.random.key(seed), model, photo, 1, regions, count=7, photos=[other])
    mesh = jax.make_mesh((1,), ("devices",))
    vs = [
        jm.token_value_fn(model, photo, 1, regions),
        jm.pixel_value_fn(model.logits, photo, 1, regions, fill="mean"),
        jm.robust_value_fn(drawn),
        jm.shard_coalitions(jm.token_value_fn(model, photo, 1, regions), mesh),
        *drawn,
    ]
    tokens = model.embed_tokens(photo)
    rows = jax.tree.map(lambda t: t[None], tokens)
    yield from ((v(masks), v.leads(masks), v.probabilities(masks)) for v in vs)
    yield vs[0].relaxed(masks * 0.5)
    yield vs[1].blended(jnp.full((1, 32, 32), 0.5))
    yield model.logits(photo[None]), model.attention_maps(photo), model.encode_tokens(rows, jnp.ones((1, 16), bool))
    yield model.classify(model.features(photo[None]))


def test_another_photo_compiles_nothing(photos):
    assert programs(lambda: list(asked(photos[0], photos[1], 0))) > 0
    assert programs(lambda: list(asked(photos[1], photos[2], 1))) == 0


def test_another_batch_of_p2p_compiles_nothing():
    model = p2p.init(jax.random.key(0), CONFIG)
    regions = jnp.broadcast_to(jm.grid_regions(32, 32, rows=4, cols=4), (2, 32, 32))

    def asked(seed):
        images = jax.random.uniform(jax.random.key(seed), (2, 32, 32, 3))
        logits, shares, _ = model.group_logits(images, regions, jnp.array([0.2, 0.4]))
        kept = model.keep(logits, shares, jnp.array([0.2, 0.4]))[:, 0]
        yield logits, shares, model.importance(images), model.classify(images, kept, regions)
        yield p2p.predict(model, images, regions, certainty=0.9).logits

    assert programs(lambda: list(asked(0))) > 0
    assert programs(lambda: list(asked(1))) == 0


@record
class Scaled:
    by: jax.Array
    mode: str = static()

    @compiled
    def plus(self, x, *, extra: int | None = None):
        SEEN.append((self.mode, extra))
        return self.by * x + (extra or 0)


SEEN = []


def test_a_compiled_method_is_its_function_in_every_way_of_calling_it():
    SEEN.clear()
    x, one = jnp.arange(3.0), Scaled(jnp.float32(2), "a")
    for extra, expected in ((None, [0, 2, 4]), (1, [1, 3, 5]), (1, [1, 3, 5])):
        np.testing.assert_array_equal(one.plus(x, extra=extra), expected)
    np.testing.assert_array_equal(Scaled(jnp.float32(3), "a").plus(x, extra=1), [1, 4, 7])  # traces nothing
    assert SEEN == [("a", None), ("a", 1)]
    np.testing.assert_array_equal(Scaled(jnp.float32(3), "b").plus(x), [0, 3, 6])
    np.testing.assert_array_equal(jax.jit(lambda s, x: s.plus(x, extra=1))(one, x), [1, 3, 5])
    np.testing.assert_array_equal(jax.vmap(one.plus)(x), [0, 2, 4])
    assert jax.grad(lambda by: Scaled(by, "a").plus(x).sum())(1.0) == 3
    with jax.disable_jit():
        np.testing.assert_array_equal(one.plus(x), [0, 2, 4])


def test_a_plain_function_that_looks_elsewhere_is_asked_anew():
    """Under `jit` its arrays are constants; outside, nothing is kept of what it saw."""
    weights = np.ones((3, 2), np.float32)
    image, regions = jnp.ones((4, 4, 3)), jm.grid_regions(4, 4, rows=2, cols=2)

    def logits(images):
        return images.mean((1, 2)) @ weights * jnp.array([1.0, 2.0])

    v = jm.pixel_value_fn(logits, image, 1, regions, payoff="logit")
    both = jm.robust_value_fn([v, jm.pixel_value_fn(logits, image, 1, regions, payoff="logit", fill=1.0)])
    spread = jm.shard_coalitions(v, jax.make_mesh((1,), ("devices",)))
    whole = jnp.ones((1, 4), bool)
    np.testing.assert_allclose([float(u(whole)[0]) for u in (v, both, spread)], 6)
    weights *= 2
    np.testing.assert_allclose([float(u(whole)[0]) for u in (v, both, spread)], 12)


def test_every_method_takes_its_arguments_by_name(photos):
    model = tiny_model()[0]
    regions = jm.grid_regions(32, 32, rows=2, cols=2)
    masks = jnp.ones((2, 4), bool)
    tokens = jm.token_value_fn(model, photos[0], 1, regions)
    pixels = jm.pixel_value_fn(model.logits, photos[0], 1, regions)
    rows = jax.tree.map(lambda t: t[None], model.embed_tokens(image=photos[0]))
    logits = model.logits(images=photos[0][None])
    np.testing.assert_allclose(logits, model.encode_tokens(tokens=rows, present=jnp.ones((1, 16), bool)), atol=1e-5)
    np.testing.assert_allclose(logits, jax.jit(lambda x: model.logits(images=x))(photos[0][None]), atol=1e-5)
    for v in (tokens, pixels, jm.robust_value_fn([tokens])):
        np.testing.assert_allclose(v.logits(masks=masks), jnp.tile(logits, (2, 1)), atol=1e-5)
        np.testing.assert_allclose(v(masks, max_visible=4), v(masks=masks), atol=1e-5)
    assert pixels.blended(shares=jnp.ones((1, 32, 32))).values.shape == (1,)


def test_a_function_in_a_partial_is_asked_anew_too():
    weights = np.ones((3, 2), np.float32)

    def predict(scale, images):
        return images.mean((1, 2)) @ weights * scale

    image, regions = jnp.ones((4, 4, 3)), jm.grid_regions(4, 4, rows=2, cols=2)
    for wrap in (functools.partial, jax.tree_util.Partial):
        v = jm.pixel_value_fn(wrap(predict, jnp.array([1.0, 2.0])), image, 1, regions, payoff="logit")
        first = float(v(jnp.ones((1, 4), bool))[0])
        weights *= 2
        assert float(v(jnp.ones((1, 4), bool))[0]) == 2 * first
        assert float(jm.robust_value_fn([v])(jnp.ones((1, 4), bool))[0]) == 2 * first


class Holder:
    """What is no pytree."""

    by = 2.0

    @compiled
    def plus(self, x):
        assert not isinstance(x, jax.core.Tracer)
        return self.by * x


def test_of_an_object_that_is_no_pytree_it_runs_as_it_is():
    np.testing.assert_array_equal(Holder().plus(jnp.arange(3.0)), [0, 2, 4])
