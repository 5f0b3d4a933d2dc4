"""Explanations under noise on the image, and under noise in the weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import metrics
from jaxmoxi.metrics.robustness import rank_correlation
from support.attribution import GRID, IMAGE, SHALLOW, cnn_model, vit_model

KEY = jax.random.key(0)


def test_max_sensitivity_of_a_linear_explanation():
    weights = jax.random.normal(jax.random.key(1), (IMAGE.size, 5))

    def explain(image):
        return image.ravel() @ weights

    got = metrics.max_sensitivity(KEY, explain, IMAGE, radius=0.1, num_samples=6)
    moves = []
    for one in jax.random.split(KEY, 6):
        noise = np.asarray(jax.random.uniform(one, IMAGE.shape, jnp.float32, -0.1, 0.1))
        assert np.abs(noise).max() <= 0.1
        moves.append(np.linalg.norm(noise.ravel() @ np.asarray(weights)))
    np.testing.assert_allclose(got, max(moves) / np.linalg.norm(explain(IMAGE)), rtol=1e-4)
    smaller = metrics.max_sensitivity(KEY, explain, IMAGE, radius=0.01, num_samples=6)
    np.testing.assert_allclose(smaller, got / 10, rtol=1e-3)


def test_what_never_changes_is_not_sensitive():
    assert float(metrics.max_sensitivity(KEY, lambda image: jnp.arange(4.0), IMAGE)) == 0
    assert np.isnan(metrics.max_sensitivity(KEY, lambda image: jnp.zeros(4), IMAGE))


def gradient_of(model):
    problem = jm.attribution.problem(model, IMAGE, 1, GRID)
    return jm.attribution.METHODS["gradient"].explain(None, problem)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_scores_follow_the_weights_from_the_output_down(order):
    seen = []

    def explain(model):
        seen.append(jax.tree.leaves(model))
        return gradient_of(model)

    model = vit_model()
    found = metrics.parameter_randomisation(KEY, explain, model, order=order)
    assert found.similarity.shape == (len(found.layers),)
    assert "head" in found.layers[0]
    assert any("embed" in name or "patch" in name for name in found.layers[-3:])
    assert (np.abs(found.similarity) <= 1 + 1e-6).all()
    whole, *later = seen
    changed = [
        {i for i, (a, b) in enumerate(zip(whole, now, strict=True)) if not np.array_equal(a, b)} for now in later
    ]
    if order == "cascading":
        assert all(a < b for a, b in itertools.pairwise(changed))
    else:
        assert not set.intersection(*changed)
    for now in later:
        for a, b in zip(whole, now, strict=True):
            np.testing.assert_array_equal(np.sort(np.ravel(a)), np.sort(np.ravel(b)))


def test_an_explanation_that_ignores_the_model_is_found_out():
    found = metrics.parameter_randomisation(KEY, lambda model: jnp.arange(9.0), vit_model(SHALLOW))
    np.testing.assert_array_equal(found.similarity, 1)
    assert len(found.layers) > 3
    assert len(set(found.layers)) == len(found.layers)


def test_layers_are_ordered_through_branches_and_loops():
    """What runs by platform, or in a loop, is a layer in its place."""

    def net(w, x):
        x = jax.lax.platform_dependent(
            x.mean((1, 2)), w["a"], cpu=lambda x, a: x @ a, default=lambda x, a: (a.T @ x.T).T
        )
        x = jax.lax.cond(x.sum() > 0, lambda x, b: x @ b, lambda x, b: -x @ b, x, w["b"])
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w["c"]), None), x, None, length=2)[0] @ w["d"]

    weights = {name: {"w": jax.random.normal(jax.random.key(i), (3, 3))} for i, name in enumerate("dabc")}
    model = jax.tree_util.Partial(lambda w, x: net({name: part["w"] for name, part in w.items()}, x), weights)
    found = metrics.parameter_randomisation(KEY, lambda m: m(IMAGE[None])[0], model, images=IMAGE[None])
    assert [name.split(".")[-1] for name in found.layers] == ["d", "c", "b", "a"]


def test_a_networks_layers_go_from_its_head_to_its_stem():
    found = metrics.parameter_randomisation(KEY, lambda model: jnp.arange(9.0), cnn_model())
    names = list(found.layers)
    assert names[0].startswith("classifier")
    blocks = [int(name.split(".")[1]) for name in names if name.startswith("blocks.")]
    assert blocks == sorted(blocks, reverse=True)
    assert names.index("head" if "head" in names else names[1]) < names.index(next(n for n in names if "blocks." in n))
    assert "stem" in names[-1] or "stem" in names[-2]


def test_any_pytree_is_a_model():
    weights = {
        "last": {"w": jnp.arange(12.0).reshape(3, 4)},
        "first": {"w": jnp.arange(9.0).reshape(3, 3), "b": jnp.arange(3.0)},
    }
    net = jax.tree_util.Partial(
        lambda w, x: jnp.tanh(x.mean((1, 2)) @ w["first"]["w"] + w["first"]["b"]) @ w["last"]["w"], weights
    )
    found = metrics.parameter_randomisation(
        KEY, lambda m: m(IMAGE[None])[0], net, images=IMAGE[None], order="independent", absolute=True
    )
    assert [name.split(".")[-1] for name in found.layers] == ["last", "first"]


def test_ranks_share_ties():
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 40])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([0.0, 0, 1]), np.array([0.0, 1, 1])) == pytest.approx(0.5)
    assert np.isnan(rank_correlation(np.zeros(3), np.arange(3.0)))


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused():
    with pytest.raises(ValueError, match="a radius above 0 and num_samples of at least 1; got 0 and 10"):
        metrics.max_sensitivity(KEY, lambda image: image[0, 0], IMAGE, radius=0)
    with pytest.raises(ValueError, match=r"explain to return scores float32\[P\]; got shape \(12, 3\)"):
        metrics.max_sensitivity(KEY, lambda image: image[0], IMAGE)
    with pytest.raises(ValueError, match='expected order of "cascading" or "independent"; got \'random\''):
        metrics.parameter_randomisation(KEY, gradient_of, vit_model(), order="random")
    with pytest.raises(ValueError, match="expected images, from which the order of the layers can be read"):
        metrics.parameter_randomisation(KEY, lambda m: m, jax.tree_util.Partial(lambda w, x: x @ w, jnp.ones((3, 2))))
    with pytest.raises(ValueError, match="a model with arrays among its leaves"):
        metrics.parameter_randomisation(KEY, lambda m: m, {})
