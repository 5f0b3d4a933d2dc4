"""The order of a group that holds in many removals: its members first, each by what it adds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.attribution import METHODS, Effort
from jaxmoxi.study import StudyConfig
from support.attribution import GRID, IMAGE, LINEAR, make

KEY = jax.random.key(7)


def games(problem, count):
    return jm.games.removals(
        KEY, LINEAR, IMAGE, problem.target, GRID, count=count, payoff=problem.payoff(), link=problem.link
    )


@pytest.mark.parametrize("insertion", [True, False])
def test_the_group_comes_first(insertion):
    """Whether or not the class can be kept, or lost, in all removals: the group of those in which it can."""
    target = int(jnp.argmax(LINEAR(IMAGE[None])))
    problem = make(LINEAR, target=target, payoff="log_odds")
    vs = games(problem, 3)
    ends = np.full((1, 9), insertion)
    able = [bool(jm.evaluate(v, ends)[0] >= 0) == insertion for v in vs]
    scores = attribution.robust(KEY, problem, insertion=insertion, num_removals=3)
    order = np.asarray(attribution.order_of(scores))
    assert sorted(scores.tolist()) == list(range(1, 10))
    assert any(able) or not insertion
    if any(able):
        group = jm.search.robust_group(vs, 9, insertion=insertion, hold=np.mean(able)).group
        assert set(order[: int(group.sum())]) == set(np.flatnonzero(group).tolist())


def test_without_a_group_the_mean_of_the_removals_decides():
    """The left column alone counts, and never enough: it is last to leave, and so first in the order."""

    def logits(images):
        left = images[:, :, :4].mean((1, 2, 3))
        return jnp.stack([left, jnp.full_like(left, 50.0)], -1)

    image = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (12, 12, 3)), jnp.float32)
    v = jm.pixel_value_fn(logits, image, 0, GRID, payoff="logit")
    problem = attribution.problem(logits, image, 0, GRID, v=v)
    order = attribution.order_of(attribution.robust(KEY, problem, num_removals=3))
    assert set(np.asarray(order)[:3].tolist()) == {0, 3, 6}


def test_it_decides_on_the_host():
    problem = make(LINEAR)
    with pytest.raises(ValueError, match="decides on the host .* outside jit"):
        jax.jit(attribution.robust)(KEY, problem)
    with pytest.raises(ValueError, match="drawing removals draws at random"):
        attribution.robust(None, problem)


def test_its_price_and_its_place():
    method = METHODS["robust"]
    effort = Effort(196)
    assert method.keywords(effort)["budget"] == 3 * 196 * 197 // 2  # three full greedy orders
    assert method.cost(effort) < 4 * 196 * 197 // 2
    assert method.keywords(Effort(49, steps=5))["budget"] < 1500
    assert "robust" not in StudyConfig().methods
    assert StudyConfig().methods == tuple(name for name in METHODS if name != "robust")
    assert list(METHODS).index("moxi") < list(METHODS).index("robust") < list(METHODS).index("random")
