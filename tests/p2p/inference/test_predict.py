"""Prediction: the search against a loop that knows nothing of shortcuts."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.distribution import group_means, over_pixels
from jaxmoxi.p2p.inference import predict
from jaxmoxi.p2p.model import fill_colour
from support.p2p import SMALL_CONFIG as CONFIG
from support.p2p import spread_model

LEVELS = (0.5, 0.8, 0.9, 0.97)
COUNT = 7


@pytest.fixture(scope="module")
def model():
    return spread_model()


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (COUNT, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    blocks = np.arange(16).reshape(4, 4).repeat(8, 0).repeat(8, 1).astype(np.int32)
    regions = np.tile(blocks, (COUNT, 1, 1))
    regions[1][regions[1] == 5] = 17  # group 5 has no pixels, group 17 has
    regions[2][regions[2] == 3] = 40  # belongs to no group
    return images, regions


def trajectories(model, images, regions):
    """For each image and every threshold: (threshold, logits, group probabilities, mask), with no shortcut taken.

    The selector runs again for each threshold, which is added to the inputs of its head's outputs.
    """
    config = model.config
    taus = [round(0.05 * i, 2) for i in range(1, 21)] if config.dynamic_threshold else [config.threshold]

    @jax.jit
    def answer(image, labels, tau):
        image = model.normalize(image)
        means, shares = group_means(model.importance(image) + tau * model.shift(), labels, config.num_groups)
        mu, kept = jnp.where(shares > 0, means[..., 0], 0.0), (means[..., 0] > 0) & (shares > 0)
        mask = over_pixels(kept, labels)[..., None]
        logits = model.modules()[1](jnp.where(mask, image, fill_colour(config)))
        return jnp.log(jax.nn.softmax(logits) + 1e-6)[0], jax.nn.sigmoid(mu)[0], kept[0]

    for i in range(len(images)):
        pair = jnp.asarray(images[i : i + 1]), jnp.asarray(regions[i : i + 1])
        yield [(tau, *map(np.asarray, answer(*pair, jnp.float32(tau)))) for tau in taus]


def first_certain(trajectory, certainty):
    """The first threshold that is certain enough, or the last, and how many different masks came up until then."""
    certain = [jax.nn.softmax(logits).max() >= certainty for _, logits, _, _ in trajectory]
    at = certain.index(True) if True in certain else len(trajectory) - 1
    masks = [kept for *_, kept in trajectory[: at + 1]]
    runs = 1 + sum((a != b).any() for a, b in itertools.pairwise(masks))
    return *trajectory[at], runs


@pytest.fixture(scope="module")
def naive(model, inputs):
    return list(trajectories(model, *inputs))


@pytest.fixture(scope="module")
def found(model, inputs):
    return p2p.predict(model, *inputs, certainty=LEVELS, batch_size=3)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_is_what_a_naive_loop_finds(naive, found, level):
    for i, trajectory in enumerate(naive):
        tau, logits, probs, kept, runs = first_certain(trajectory, LEVELS[level])
        np.testing.assert_allclose(found.threshold[level, i], tau, atol=1e-6)
        np.testing.assert_allclose(found.logits[level, i], logits, atol=1e-4)
        np.testing.assert_allclose(found.group_probs[level, i], probs, atol=1e-5)
        np.testing.assert_array_equal(found.group_mask[level, i], kept)
        assert found.num_evaluations[level, i] == runs


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [(0.05, 0.15, [0.05, 0.1, 0.15]), (0.05, 0.125, [0.05, 0.1, 0.125]), (0.3, 1.0, [0.3, 0.6, 0.9, 1.0])],
)
def test_the_thresholds_that_are_tried(least, most, expected):
    config = dataclasses.replace(CONFIG, min_threshold=least, max_threshold=most)
    np.testing.assert_allclose(predict.threshold_grid(config), expected, rtol=1e-6)
    assert len(predict.threshold_grid(CONFIG)) == 20


def test_the_cases_are_not_all_alike(found):
    """What the comparison above would be worth nothing without."""
    assert len(np.unique(found.threshold)) >= 5
    assert len(np.unique(found.num_evaluations)) >= 4
    assert (np.abs(found.threshold - 0.05) < 1e-6).any()
    assert (found.threshold[-1] == 1).any()
    assert (found.threshold[0] < found.threshold[-1]).any()


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 7, 64])
def test_the_batch_changes_nothing(model, inputs, found, batch_size):
    other = p2p.predict(model, *inputs, certainty=LEVELS, batch_size=batch_size)
    for name in found.__dataclass_fields__:
        np.testing.assert_allclose(getattr(other, name), getattr(found, name), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_mesh_changes_nothing(model, inputs, found, batch_size):
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    other = p2p.predict(model, *inputs, certainty=LEVELS, batch_size=batch_size, mesh=mesh)
    for name in found.__dataclass_fields__:
        np.testing.assert_allclose(getattr(other, name), getattr(found, name), atol=1e-5, err_msg=name)


def test_each_device_takes_its_share(model, inputs, monkeypatch):
    """And nothing that the networks compute goes from one device to another: at most the masks of the batch do."""
    mesh, seen = jax.make_mesh((8,), ("images",)), []

    def spied(run):
        def spy(model, *arrays, **more):
            seen.append((run.lower(model, *arrays, **more).compile().as_text(), arrays))
            return run(model, *arrays, **more)

        return spy

    for name in ("_select", "classify_kept"):
        monkeypatch.setattr(predict, name, spied(getattr(predict, name)))
    p2p.predict(model, *inputs, certainty=0.9, batch_size=9, mesh=mesh)
    assert len(seen) >= 2
    for text, arrays in seen:
        assert all(x.sharding.shard_shape(x.shape) == (1, *x.shape[1:]) for x in arrays)
        sent = re.findall(r"= (\S+)\[([\d,]*)\]\S* (?:all-|collective-|reduce-scatter)[a-z-]*\(", text)
        assert set(sent) <= {("pred", "8,18"), ("f32", "8,18")}, sent


def test_other_images_in_the_batch_change_nothing(model, inputs, found):
    images, regions = inputs
    order = np.array([4, 1, 6])
    some = p2p.predict(model, images[order], regions[order], certainty=LEVELS, batch_size=3)
    np.testing.assert_array_equal(some.threshold, found.threshold[:, order])
    np.testing.assert_allclose(some.logits, found.logits[:, order], atol=1e-5)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_several_certainties_are_the_single_ones(model, inputs, found, level):
    one = p2p.predict(model, *inputs, certainty=LEVELS[level], batch_size=3)
    assert one.logits.shape == (COUNT, 3)
    for name in one.__dataclass_fields__:
        whole = getattr(found, name)
        expected = whole if name in ("areas", "embeddings") else whole[level]
        np.testing.assert_allclose(getattr(one, name), expected, atol=1e-5, err_msg=name)


def test_the_classifier_runs_no_more_than_it_must(model, inputs, found, monkeypatch):
    rows = []

    def counting(model, images, groups, regions):
        rows.append(np.concatenate([np.asarray(images).reshape(len(images), -1), np.asarray(groups)], axis=1))
        return classify(model, images, groups, regions)

    classify = predict.classify_kept
    monkeypatch.setattr(predict, "classify_kept", counting)
    p2p.predict(model, *inputs, certainty=LEVELS, batch_size=1)
    ran = np.concatenate(rows)
    assert len(ran) == int(found.num_evaluations.max(0).sum())
    assert len(np.unique(ran, axis=0)) == len(ran)
    rows.clear()
    p2p.predict(model, *inputs, certainty=LEVELS, batch_size=COUNT)
    together = -(-len(ran) // COUNT)
    assert together <= len(rows) < int(found.num_evaluations.max())  # spare places look ahead


def test_pixels_areas_and_embeddings(model, inputs, found):
    images, regions = inputs
    for level in range(len(LEVELS)):
        for i in range(COUNT):
            kept = np.flatnonzero(found.group_mask[level, i])
            np.testing.assert_array_equal(found.pixel_mask[level, i], np.isin(regions[i], kept))
    np.testing.assert_allclose(found.hard_share, found.pixel_mask.mean((-1, -2)), atol=1e-6)
    np.testing.assert_allclose(found.areas[1], [(regions[1] == g).mean() for g in range(18)], atol=1e-6)
    np.testing.assert_allclose(found.areas.sum(1), [1, 1, 15 / 16, 1, 1, 1, 1], atol=1e-6)
    expected = [(p * a).sum() for p, a in zip(found.group_probs[0], found.areas, strict=True)]
    np.testing.assert_allclose(found.soft_share[0], expected, rtol=1e-5)
    importance = model.importance(model.normalize(jnp.asarray(images)))
    np.testing.assert_allclose(found.embeddings[0, 6], importance[0, 8:16, 16:24, 1:].mean((0, 1)), atol=1e-4)


def test_a_fixed_threshold_takes_one_run(inputs):
    fixed = spread_model(dataclasses.replace(CONFIG, dynamic_threshold=False, threshold=0.2), seed=1)
    out = p2p.predict(fixed, *inputs, certainty=LEVELS, batch_size=4)
    assert out.logits.shape == (4, COUNT, 3)
    np.testing.assert_array_equal(out.threshold, np.full((4, COUNT), np.float32(0.2)))
    assert (out.num_evaluations == 1).all()
    for i, [(_, logits, _, kept)] in enumerate(trajectories(fixed, *inputs)):
        np.testing.assert_allclose(out.logits[3, i], logits, atol=1e-4)
        np.testing.assert_array_equal(out.group_mask[3, i], kept)


def test_floats_are_as_good_as_bytes(model, inputs, found):
    images, regions = inputs
    out = p2p.predict(model, jnp.asarray(images) / 255, jnp.asarray(regions), certainty=LEVELS[1], batch_size=3)
    np.testing.assert_array_equal(out.threshold, found.threshold[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": np.zeros((2, 16, 16, 3), np.uint8)},
            r"expected images \[B, 32, 32, 3\]; got shape \[2, 16, 16, 3\]",
        ),
        (
            {"images": np.zeros((2, 32, 32, 3), np.int32)},
            r"expected uint8 images, or float ones in \[0, 1\]; got int32",
        ),
        ({"regions": np.zeros((2, 32, 31), np.int32)}, r"expected regions int\[2, 32, 32\]; got int32 of shape"),
        ({"regions": np.zeros((2, 32, 32), np.float32)}, r"expected regions int\[2, 32, 32\]; got float32 of shape"),
        ({"regions": np.full((2, 32, 32), -1)}, "expected regions labelled from 0 on; got the label -1"),
        ({"certainty": 0.0}, r"certainty must lie in \(0, 1\]; got 0.0"),
        ({"certainty": (0.9, 1.1)}, r"certainty must lie in \(0, 1\]; got \(0.9, 1.1\)"),
        ({"certainty": ()}, r"certainty must lie in \(0, 1\]; got \(\)"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be(model, change, message):
    arguments = {"images": np.zeros((2, 32, 32, 3), np.uint8), "regions": np.zeros((2, 32, 32), np.int32)}
    with pytest.raises(ValueError, match=message):
        p2p.predict(model, **arguments | change)


def test_no_images(model):
    with pytest.raises(ValueError, match="expected at least one image; got none"):
        p2p.predict(model, np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 32, 32), np.int32))
