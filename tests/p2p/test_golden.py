"""The published implementation's own answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p import distribution
from jaxmoxi.p2p.training import losses
from support.p2p import golden, golden_batch, golden_config, golden_state_dict

IMAGES, REGIONS, LABELS = golden_batch()


@pytest.fixture(scope="module")
def fixed():
    return p2p.from_torch(golden_state_dict(), golden_config(dynamic_threshold=False, threshold=0.3))


@pytest.fixture(scope="module")
def dynamic():
    return p2p.from_torch(golden_state_dict(), golden_config())


@pytest.fixture(scope="module")
def means(fixed):
    importance = jax.jit(lambda m, x: m.importance(m.normalize(x)))(fixed, jnp.asarray(IMAGES))
    return importance, *distribution.group_means(importance, jnp.asarray(REGIONS), golden()["n_segments"])


def test_importance(means):
    stats, importance = golden()["importance_stats"], np.asarray(means[0])
    np.testing.assert_allclose(importance.mean((1, 2)), stats["mean"], atol=1e-3)
    np.testing.assert_allclose(importance.std((1, 2)), stats["std"], atol=1e-3)
    corner = np.moveaxis(importance[:, :4, :4], -1, 1)
    np.testing.assert_allclose(corner, stats["corner"], atol=2e-3)
    middle = golden()["size"] // 2
    centre = np.moveaxis(importance[:, middle - 2 : middle + 2, middle - 2 : middle + 2], -1, 1)
    np.testing.assert_allclose(centre, stats["center"], atol=2e-3)


def test_fixed_threshold(fixed):
    expected, out = golden()["fixed"], p2p.predict(fixed, IMAGES, REGIONS)
    np.testing.assert_allclose(out.logits, expected["logits"], atol=1e-3)
    np.testing.assert_allclose(out.group_probs, expected["group_probs"], atol=1e-3)
    np.testing.assert_array_equal(out.pixel_mask.sum((1, 2)), expected["mask"])
    np.testing.assert_array_equal(out.threshold, np.full(4, np.float32(0.3)))


def test_covariance(means):
    expected = np.array(golden()["fixed"]["group_cov"])
    found = np.asarray(distribution.covariance(means[1][..., 1:]))
    jitter = np.einsum("bgg->bg", expected - found)
    np.testing.assert_allclose(expected - found - jitter[..., None] * np.eye(found.shape[-1]), 0, atol=4e-3)
    assert (jitter > -4e-3).all()
    assert (jitter < 6e-3).all()


@pytest.mark.parametrize("regulariser", ["kl", "l1"])
def test_fixed_losses(fixed, means, regulariser):
    expected, out = golden()["fixed"][f"loss_{regulariser}"], p2p.predict(fixed, IMAGES, REGIONS)
    terms = losses.p2p_loss(
        out.logits, jnp.asarray(LABELS), out.group_probs, means[2], jnp.asarray(golden()["fixed"]["group_cov"]), 0.3,
        regulariser=regulariser, weight=10.0, covariance_weight=0.01,
    )  # fmt: skip
    for ours, theirs in (("target", "target"), ("sparsity", "reg"), ("covariance", "cov"), ("total", "total")):
        np.testing.assert_allclose(getattr(terms, ours), expected[theirs], rtol=1e-3)
    np.testing.assert_allclose(terms.kept, expected["avg_weighted"], atol=1e-3)


def test_dynamic_thresholds(dynamic, means):
    cases = golden()["dynamic"]
    out = p2p.predict(dynamic, IMAGES, REGIONS, certainty=[case["certainty"] for case in cases])
    for i, case in enumerate(cases):
        np.testing.assert_allclose(out.threshold[i], case["threshold"], atol=1e-6)
        np.testing.assert_allclose(out.logits[i], case["logits"], atol=1e-3)
        np.testing.assert_allclose(out.group_probs[i], case["group_probs"], atol=1e-3)
        for regulariser in ("kl", "l1"):
            expected = case[f"loss_{regulariser}"]
            terms = losses.p2p_loss(
                out.logits[i], jnp.asarray(LABELS), out.group_probs[i], means[2], None, out.threshold[i],
                regulariser=regulariser, weight=10.0, covariance_weight=0.01,
            )  # fmt: skip
            np.testing.assert_allclose(terms.target, expected["target"], rtol=1e-3)
            np.testing.assert_allclose(terms.sparsity, expected["reg"], rtol=2e-3, atol=1e-4)
            np.testing.assert_allclose(terms.kept, expected["avg_weighted"], atol=1e-3)
        one = p2p.predict(dynamic, IMAGES, REGIONS, certainty=case["certainty"], batch_size=3)
        np.testing.assert_array_equal(one.threshold, out.threshold[i])
        np.testing.assert_allclose(one.logits, out.logits[i], atol=1e-4)


def test_schedules():
    expected = golden()["schedules"]
    epochs = range(len(expected["temperature"]))
    for epoch in epochs:
        temperature = losses.temperature(epoch, expected["num_epochs"], 0.5)
        np.testing.assert_allclose(temperature, expected["temperature"][epoch], rtol=1e-6)
        weight = losses.regulariser_weight(epoch, expected["num_epochs"], 10.0)
        np.testing.assert_allclose(weight, expected["reg_weight"][epoch], rtol=1e-6)


def test_fidelity_curves(fixed):
    curves = p2p.fidelity(fixed, IMAGES, REGIONS, p2p.predict(fixed, IMAGES, REGIONS))
    expected = golden()["fixed"]
    np.testing.assert_allclose(np.stack([curves.shares, curves.deletion], 1), expected["deletion_fidelity"], atol=1e-6)
    insertion = np.stack([curves.shares, curves.insertion], 1)[::-1]
    np.testing.assert_allclose(insertion, expected["insertion_fidelity"], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selector": "small"}, 'use a Config with selector="lraspp"'),
        ({"threshold_input": "rerank"}, 'use a Config with threshold_input="shift"'),
        ({"classifier": p2p.CNNConfig()}, "classifiers are vision transformers and ResNets"),
    ],
)
def test_what_no_published_state_dict_fits(changes, message):
    with pytest.raises(ValueError, match=message):
        p2p.from_torch(golden_state_dict(), golden_config(**changes))
