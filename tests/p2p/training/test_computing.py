"""How a step computes: in parts, in mixed precision, with an average of the weights, one network faster."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from jaxmoxi import p2p
from jaxmoxi.p2p.training.computing import Computing, averaged, faster_selector, in_parts, lowered
from jaxmoxi.p2p.training.config import Objective
from jaxmoxi.p2p.training.step import init_state, train_step
from support.trainer import CONFIG, TRAIN, After, Grid, equal, timeless

KIND = dataclasses.replace(TRAIN, num_epochs=2, whole_epochs=0, select=False, accumulate=4, ema=0.9, selector_rate=3.0)
FIT = dict(train=KIND, progress=False)


def test_parts_have_the_whole_batch_s_gradient_and_draws_of_their_own():
    w = jnp.arange(3.0)

    def gradient(statistics, batch, key):
        loss = lambda w: jnp.mean((batch.images.mean((1, 2)) @ w) ** 2)  # noqa: E731
        return jax.grad(loss)(w), (statistics + 1, {"loss": loss(w), "draw": jax.random.uniform(key)})

    batch = Grid().batch(0)
    batch = batch._replace(regions=jnp.asarray(batch.regions))
    key = jax.random.key(1)
    whole, (_, metrics) = in_parts(gradient, 1, jnp.int32(0), batch, key)
    parts, (count, means) = in_parts(gradient, 4, jnp.int32(0), batch, key)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    np.testing.assert_allclose(means["loss"], metrics["loss"], rtol=1e-5)
    draws = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(4)]
    np.testing.assert_allclose(means["draw"], np.mean(draws), rtol=1e-5)
    assert int(count) == 4


def test_an_average_forgets_the_first_weights_fast():
    weights = [np.float32(x) for x in (1.0, 5.0, 2.0, -3.0)]
    average = expected = np.float32(0.0)
    for n, weight in enumerate(weights):
        average = averaged(average, weight, 0.3, jnp.int32(n))
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
    np.testing.assert_allclose(average, expected, rtol=1e-6)


def test_the_selector_learns_faster_by_its_factor():
    params = ({"w": jnp.ones(2)}, {"w": jnp.ones(2)})
    plain = optax.adamw(1e-2, weight_decay=0.1)
    both = optax.chain(plain, faster_selector(5.0))
    (a, b), (c, d) = (opt.update(params, opt.init(params), params)[0] for opt in (plain, both))
    np.testing.assert_allclose(c["w"], 5 * a["w"])
    np.testing.assert_array_equal(d["w"], b["w"])


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32():
    optimizer = optax.adam(1e-3)
    state = jax.eval_shape(lambda: init_state(p2p.init(jax.random.key(0), CONFIG), optimizer))
    step = functools.partial(
        train_step, objective=Objective(), optimizer=optimizer, steps_per_epoch=4,
        computing=Computing(precision="bfloat16"),
    )  # fmt: skip
    traced = jax.make_jaxpr(step)(state, Grid().batch(0), jax.random.key(0))
    kinds = ("dot_general", "conv_general_dilated")
    products = [e for e in every_equation(traced.jaxpr) if e.primitive.name in kinds]
    low = [e for e in products if all(v.aval.dtype == jnp.bfloat16 for v in e.invars)]
    assert len(products) > len(low) > len(products) / 2
    assert jnp.bfloat16 not in {x.dtype for x in traced.out_avals}
    kept = lowered(p2p.init(jax.random.key(0), CONFIG).classifier, "bfloat16")
    assert kept["head"]["kernel"].dtype == jnp.float32
    assert kept["patch"]["kernel"].dtype == jnp.bfloat16


def every_equation(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from every_equation(inner)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return p2p.fit(CONFIG, Grid(), validation=Grid(32, first=64), directory=folder, **FIT), folder


def test_a_run_of_the_new_kind_keeps_the_average_and_goes_on_with_the_same_bits(whole, tmp_path):
    fit = dict(validation=Grid(32, first=64), directory=tmp_path, **FIT)
    stopped = p2p.fit(CONFIG, Grid(), should_stop=After(8), **fit)
    assert int(stopped.state.step) == 6
    assert equal(p2p.load(tmp_path), stopped.state.average)  # of an unfinished run
    assert not equal(stopped.state.average, stopped.state.model)
    result = p2p.fit(CONFIG, Grid(), **fit)
    assert equal(result.state, whole[0].state)
    assert timeless(result.history) == timeless(whole[0].history)
    assert equal(result.model, result.state.average)
    assert equal(p2p.load(tmp_path), result.model)


def test_a_goal_ends_the_training_for_good(whole, tmp_path):
    easy = dataclasses.replace(KIND, goal_accuracy=0.01, goal_share=1.0)
    fit = dict(train=easy, validation=Grid(32, first=64), directory=tmp_path, progress=False)
    result = p2p.fit(CONFIG, Grid(), **fit)
    assert int(result.state.step) == 4
    assert [line["epoch"] for line in result.history] == [1]
    assert equal(p2p.load(tmp_path), result.model)
    again = p2p.fit(CONFIG, Grid(fail_at=4), **fit)
    assert equal(again.state, result.state)
    hard = dataclasses.replace(easy, goal_accuracy=None, goal_share=0.5)  # whole images are more than that
    assert equal(
        p2p.fit(CONFIG, Grid(), train=hard, validation=Grid(32, first=64), progress=False).state, whole[0].state
    )
    with pytest.raises(ValueError, match="goal_share are goals of a validation; give validation data"):
        p2p.fit(CONFIG, Grid(), train=easy, progress=False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 3}, "accumulate must be a whole number that divides the batch_size 16; got 3"),
        ({"accumulate": 0}, "accumulate must be a whole number"),
        ({"precision": "float16"}, 'a precision of "float32" or "bfloat16"; got \'float16\''),
        ({"ema": 1.0}, r"ema is a decay in \(0, 1\), such as 0.999; got 1.0"),
        ({"goal_accuracy": 90}, r"goal_accuracy must lie in \(0, 1\]; got 90"),
        ({"goal_share": 0.0}, r"goal_share must lie in \(0, 1\]"),
        ({"selector_rate": 0.0}, "selector_rate must be above 0"),
        ({"log_every": 0}, "log_every must be a whole number of at least 1"),
        ({"method": "cosmos"}, "a method of p2p, blackbox, .*comet-inverse; got 'cosmos'"),
        ({"method": "comet", "select": False}, "select=False is the method blackbox; it is given with 'comet'"),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TRAIN, **changes)


def test_a_record_names_what_came_later_only_where_it_is_used():
    plain = dataclasses.replace(TRAIN, log_every=7).to_record()
    assert not {"ema", "method", "accumulate", "log_every"} & plain.keys()
    changed = dataclasses.replace(TRAIN, ema=0.9, method="comet").to_record()
    assert changed == plain | {"ema": 0.9, "method": "comet"}
    assert p2p.TrainConfig(select=False) == p2p.TrainConfig(method="blackbox")
    assert p2p.TrainConfig(select=False).to_record() == p2p.TrainConfig().to_record() | {"select": False}
