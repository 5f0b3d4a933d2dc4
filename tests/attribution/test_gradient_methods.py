import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import attribution
from support.attribution import BLOBS, GRID, IMAGE, LINEAR, SQUARE, WEIGHTS, make, mean_over, vit_model


def test_the_gradient_of_a_linear_model_is_its_weights():
    scores = attribution.gradient(None, make(LINEAR, regions=BLOBS))
    np.testing.assert_allclose(scores, mean_over(np.abs(WEIGHTS[..., 2]).max(-1), BLOBS), rtol=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    """Every pixel a player, the payoff of the game differentiated by central differences."""
    model, payoff = vit_model(), "log_odds"
    every = jnp.arange(144, dtype=jnp.int32).reshape(12, 12)
    step = 0.02
    moved = IMAGE + step * np.concatenate([np.eye(432), -np.eye(432)]).reshape(-1, 12, 12, 3).astype(np.float32)
    values = np.asarray(jm.payoff_values(jax.jit(model.logits)(moved), 1, payoff), np.float64)
    slopes = (values[:432] - values[432:]) / (2 * step)
    scores = attribution.gradient(None, make(model, regions=every, target=1, payoff=payoff))
    expected = np.abs(slopes.reshape(144, 3)).max(1)
    np.testing.assert_allclose(scores, expected, rtol=0.02, atol=0.01 * expected.max())


def test_another_payoff_is_differentiated_when_asked_for(unchecked):
    problem = make(SQUARE, payoff="logit")
    own = attribution.gradient(None, problem)
    np.testing.assert_allclose(attribution.gradient(None, problem, payoff="logit"), own)
    np.testing.assert_allclose(
        attribution.gradient(None, problem, payoff="log_odds"),
        attribution.gradient(None, make(SQUARE, payoff="log_odds")),
        rtol=1e-5,
    )
    assert np.abs(attribution.gradient(None, problem, payoff="prob") - own).max() > 1e-3
    with pytest.raises(ValueError, match="expected a payoff of log_odds, .* got 'odds'"):
        attribution.gradient(None, problem, payoff="odds")


@pytest.mark.parametrize("baseline", [0.0, (0.5, -1.0, 0.25), "mean", "blur"])
def test_integrated_gradients_of_a_linear_model(baseline):
    """Weight times distance from the baseline, which is what a game with the baseline for a fill loses too."""
    problem = make(LINEAR, regions=BLOBS, fill=baseline)
    change = np.asarray(problem.image - problem.v.fill)
    scores = attribution.integrated_gradients(None, problem, baseline=baseline, num_steps=3)
    np.testing.assert_allclose(scores, mean_over((WEIGHTS[..., 2] * change).sum(-1), BLOBS), rtol=1e-4, atol=1e-4)
    lost = attribution.occlusion(None, problem)
    np.testing.assert_allclose(scores * jm.regions.region_sizes(BLOBS, 5), lost, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("num_steps", "batch_size"), [(1, 8), (5, 2), (8, 8), (7, 3)])
def test_integrated_gradients_of_a_square_are_exact(num_steps, batch_size):
    """y = (w . x)^2: the gradient is linear along the path, so that any number of midpoints integrates it exactly."""
    w = 0.1 * WEIGHTS[..., 2].astype(np.float64)
    start = np.float64(0.3)
    x = np.asarray(IMAGE, np.float64)
    expected = ((x - start) * w * ((w * x).sum() + (w * start).sum())).sum(-1)
    problem = make(SQUARE)
    scores = attribution.integrated_gradients(None, problem, baseline=0.3, num_steps=num_steps, batch_size=batch_size)
    np.testing.assert_allclose(scores, mean_over(expected, GRID), rtol=1e-3, atol=1e-4)


def test_integrated_gradients_are_complete():
    """They sum to what the payoff gains from the baseline to the image."""
    model = vit_model()
    problem = make(model, payoff="log_odds", regions=BLOBS)
    scores = attribution.integrated_gradients(None, problem, num_steps=80, batch_size=20)
    ends = jm.payoff_values(jax.jit(model.logits)(jnp.stack([IMAGE, 0 * IMAGE])), 2, "log_odds")
    total = np.sum(np.asarray(scores) * np.bincount(np.asarray(BLOBS).ravel()))
    np.testing.assert_allclose(total, ends[0] - ends[1], rtol=5e-3)


def test_black_is_what_preprocessing_makes_of_it():
    model = vit_model()
    problem = make(model)
    black = model.preprocess(np.zeros((12, 12, 3), np.uint8))
    np.testing.assert_allclose(
        attribution.integrated_gradients(None, problem, baseline="black", num_steps=4),
        attribution.integrated_gradients(None, problem, baseline=black, num_steps=4),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="baseline='black' needs a Classifier"):
        attribution.integrated_gradients(None, make(LINEAR), baseline="black")


def to_numpy(images):
    shape = jax.ShapeDtypeStruct((len(images), 4), jnp.float32)
    return jax.pure_callback(lambda x: np.asarray(x).reshape(len(x), 4, -1).sum(-1), shape, images)


def test_what_cannot_be():
    problem = make(LINEAR)
    with pytest.raises(
        ValueError, match="expected num_steps of at least 1, or .auto., and batch_size of at least 1; got 0 and 8"
    ):
        attribution.integrated_gradients(None, problem, num_steps=0)
    with pytest.raises(ValueError, match="expected a fill of 'mean', 'blur', a number"):
        attribution.integrated_gradients(None, problem, baseline="grey")
    for explain in (attribution.gradient, attribution.integrated_gradients):
        with pytest.raises(ValueError, match="needs the gradient of the model's logits, which this model has not"):
            explain(None, make(to_numpy))
