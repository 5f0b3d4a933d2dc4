"""The registry: what an entry says of a method is true, and is all that a new method needs."""

import dataclasses
import inspect

import numpy as np
import pytest

from jaxmoxi import attribution
from jaxmoxi.attribution import METHODS, Effort, Method, methods, register
from support.attribution import make, tiny_net

EFFORT = Effort(num_players=49, samples=600, steps=12, batch_size=32)


@pytest.fixture
def registry():
    """Takes back what a test registers."""
    before = dict(METHODS)
    yield
    methods._methods.clear()
    methods._methods.update(before)


def test_methods_are_listed_as_tables_show_them():
    """A new method has its place among them, and changes nothing here."""
    known = [
        *("grad-cam", "grad-cam++", "attention-rollout", "gradient", "integrated-gradients", "occlusion"),
        *("rise", "hsic", "shapley", "moxi-single", "moxi", "robust", "random"),
    ]
    assert [name for name in METHODS if name in known] == known


@pytest.mark.parametrize("name", METHODS)
def test_the_keywords_are_those_of_the_function(name):
    method = METHODS[name]
    taken = set(inspect.signature(method.explain).parameters)
    assert set(method.keywords(EFFORT)) <= taken
    assert ("insertion" in method.keywords(EFFORT)) == method.directed
    assert method.help
    assert method.source


def test_what_an_effort_means_for_each_method():
    own = {name: METHODS[name].options(EFFORT) for name in METHODS}
    assert own["rise"] == own["hsic"] == {"num_samples": 600, "batch_size": 32}
    assert own["shapley"] == {"num_samples": 12, "batch_size": 32}  # 600 evaluations are 12 permutations of 49
    assert own["moxi"] == {"num_steps": 12, "batch_size": 32}
    assert METHODS["moxi"].options(EFFORT._replace(num_players=9))["num_steps"] == 9
    assert own["occlusion"] == own["moxi-single"] == {"batch_size": 32}
    assert METHODS["moxi"].keywords(EFFORT, insertion=False)["insertion"] is False


def test_coalitions_in_a_forward_pass_are_no_points_of_a_gradient():
    """The `batch_size` of integrated gradients counts points that are differentiated together: another number."""
    assert set(METHODS["integrated-gradients"].keywords(EFFORT)) == {"max_steps"}


def test_no_two_methods_are_drawn_alike():
    assert len({(m.colour, m.line) for m in METHODS.values()}) == len(METHODS)


@pytest.mark.usefixtures("registry")
def test_a_registered_method_has_its_place_in_the_list():
    mine = register(Method("mine", attribution.random_scores, "nobody", help="nothing", colour="#e377c2"))
    assert METHODS["mine"] is mine
    assert list(METHODS).index("shapley") < list(METHODS).index("mine") < list(METHODS).index("moxi")
    with pytest.raises(ValueError, match="expected a name that no other attribution method has; got 'mine'"):
        register(dataclasses.replace(mine))


@pytest.mark.parametrize("explain", [attribution.grad_cam, attribution.grad_cam_plus_plus])
def test_a_cam_of_another_score_than_the_logit(explain, unchecked):
    """The probability's gradient is not the logit's; an unknown score is refused."""
    problem = make(tiny_net())
    logit, prob = explain(None, problem), explain(None, problem, payoff="prob")
    np.testing.assert_allclose(explain(None, problem, payoff="logit"), logit)
    assert np.abs(logit / logit.max() - prob / prob.max()).max() > 1e-2
    with pytest.raises(ValueError, match="expected a payoff of log_odds, .* got 'odds'"):
        explain(None, problem, payoff="odds")
