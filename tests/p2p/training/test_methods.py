"""The methods that P2P is compared with: their losses by hand, their runs, and the table that judges them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.masking import evenly_spaced, shown
from jaxmoxi.p2p.training import methods
from jaxmoxi.p2p.training.config import Objective
from support.p2p import labelled_scenes
from support.trainer import CONFIG, TRAIN, After, Grid, equal, timeless

SIDE, CLASSES = 32, 3
PLAIN = Objective(logit_weight=0.0, regulariser="l1")


@pytest.mark.parametrize(("side", "share"), [(32, 0.25), (32, 0.1), (96, 0.2), (7, 0.5), (8, 1.0), (8, 1e-6)])
def test_pixels_are_evenly_spaced(side, share):
    mask = evenly_spaced(side, share)
    assert mask.any()
    assert abs(mask.mean() - share) <= 2.1 * np.sqrt(share) / side + 1 / side**2
    rows = np.flatnonzero(mask.any(1))
    assert np.ptp(np.diff(rows)) <= 1 if len(rows) > 1 else True
    np.testing.assert_array_equal(mask, np.outer(mask.any(1), mask.any(0)))


def select(images):  # what a selector answers, with its one parameter: [B, S, S, 1]
    return lambda w: w * images.mean(-1, keepdims=True)


def classify(v):
    return lambda x: x.mean((1, 2)) @ v


@pytest.fixture(scope="module")
def problem():
    images = jax.random.normal(jax.random.key(0), (4, SIDE, SIDE, 3))
    regions = jnp.broadcast_to(Grid().regions, (4, SIDE, SIDE))
    v = jax.random.normal(jax.random.key(1), (3, CLASSES))
    return images, regions, jnp.array([0, 1, 2, 0]), v


def cross_entropy(logits, labels):
    return -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(len(labels)), labels])


def test_comet_by_hand(problem):
    images, _, labels, v = problem
    config = methods.for_method(CONFIG, "comet")
    assert (config.masking, config.dynamic_threshold, config.embedding_size) == ("soft", False, 0)
    frozen = classify(2 * v)
    terms = methods.comet_terms(
        lambda x: select(x)(3.0), classify(v), frozen, images, labels, config, PLAIN, weight=jnp.float32(7)
    )
    mask = jax.nn.sigmoid(3 * images.mean(-1))
    seen = cross_entropy(classify(v)(shown(images, mask, config)), labels)
    hidden = cross_entropy(frozen(shown(images, 1 - mask, config)), labels)
    excess = np.mean(np.maximum(np.mean(mask, (1, 2)) - config.threshold, 0))
    np.testing.assert_allclose(terms.total, seen + max(seen - hidden + 1, 0) + 7 * excess, rtol=1e-5)
    np.testing.assert_allclose(terms.soft_share, np.mean(mask), rtol=1e-5)
    np.testing.assert_allclose(terms.hard_share, np.mean(mask), rtol=1e-5)


def test_realx_trains_its_classifier_on_random_masks_alone(problem):
    images, regions, labels, v = problem
    config = methods.for_method(CONFIG, "real-x")
    assert config.masking == "groups"

    def total(w, v):
        return methods.realx_terms(
            lambda x: select(x)(w), classify(v), classify(jax.lax.stop_gradient(v)), images, regions, labels,
            jax.random.key(0), config, PLAIN, weight=jnp.float32(1), temperature=jnp.float32(0.5),
        ).total  # fmt: skip

    by_selector, by_classifier = jax.grad(total, argnums=(0, 1))(1.0, v)
    assert abs(by_selector) > 1e-6
    np.testing.assert_array_equal(jax.grad(total, argnums=1)(-5.0, v), by_classifier)  # another selector, the same

    def on_random(v):
        some = jax.random.bernoulli(jax.random.split(jax.random.key(0))[0], 0.5, (4, config.num_groups))
        mask = some[jnp.arange(4)[:, None, None], regions].astype(jnp.float32)
        logits = classify(v)(shown(images, mask, config))
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), labels])

    np.testing.assert_allclose(by_classifier, jax.grad(on_random)(v), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_gradient_of_real_x_is_unbiased(temperature):
    mu = jnp.array([[0.5, -1.0, 0.2], [2.0, 0.0, -0.3]])
    labels = jnp.array([1, 3])
    single, pairs = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(3, 4), (3, 3, 4)]))

    def answers(kept):
        return 2 * kept @ single + jnp.einsum("...g,...h,ghk->...k", kept, kept, pairs)

    def exact(mu):
        kept = jnp.array(list(np.ndindex(2, 2, 2)), jnp.float32)[:, None]  # [8, 1, 3], every one there is
        chances = jnp.prod(jax.nn.sigmoid(jnp.where(kept > 0, mu, -mu)), -1)
        losses = -jax.nn.log_softmax(answers(kept))[:, 0, labels]
        return jnp.mean(jnp.sum(chances * losses, 0))

    def estimate(mu, key):
        return methods.rebar(key, mu, jnp.float32(temperature), answers, labels)[0]

    keys = jax.random.split(jax.random.key(5), 40_000)
    losses, gradients = jax.jit(jax.vmap(jax.value_and_grad(estimate), (None, 0)))(mu, keys)
    for found, wanted in ((losses, exact(mu)), (gradients, jax.grad(exact)(mu))):
        error = np.std(found, axis=0) / np.sqrt(len(keys))
        assert (np.abs(np.mean(found, axis=0) - wanted) < 4 * error).all()

    def by_score(key):
        kept = (jax.random.logistic(key, mu.shape) > -mu).astype(jnp.float32)
        losses = -jax.nn.log_softmax(answers(kept))[jnp.arange(2), labels]
        return losses[:, None] * (kept - jax.nn.sigmoid(mu)) / 2

    assert (np.std(gradients, axis=0) < 0.8 * np.std(jax.vmap(by_score)(keys), axis=0)).all()


def test_a_black_box_of_few_pixels_by_hand(problem):
    images, _, labels, v = problem
    config = dataclasses.replace(methods.for_method(CONFIG, "blackbox-pixel-mask"), threshold=0.25)
    terms = methods.even_terms(classify(v), images, labels, config)
    mask = jnp.broadcast_to(jnp.asarray(evenly_spaced(SIDE, 0.25), jnp.float32), images.shape[:3])
    np.testing.assert_allclose(terms.total, cross_entropy(classify(v)(shown(images, mask, config)), labels), rtol=1e-5)
    assert float(terms.hard_share) == 0.25
    assert methods.for_method(CONFIG, "p2p") is methods.for_method(CONFIG, "blackbox") is CONFIG


@pytest.fixture(scope="module")
def comet(tmp_path_factory):
    """An epoch on whole images, one with masks; also stopped in the second, and gone on with."""
    folder = tmp_path_factory.mktemp("comet")
    train = dataclasses.replace(TRAIN, num_epochs=2, method="comet")
    fit = dict(train=train, validation=Grid(32, first=64), progress=False)
    stopped = p2p.fit(CONFIG, Grid(), directory=folder / "stopped", should_stop=After(8), **fit)
    return p2p.fit(CONFIG, Grid(), directory=folder / "whole", **fit), stopped, fit, folder


def test_comet_freezes_the_classifier_of_whole_images(comet):
    result, stopped, fit, folder = comet
    assert int(stopped.state.step) == 6
    assert equal(stopped.state.frozen, result.state.frozen)
    assert not equal(stopped.state.model.classifier, result.state.model.classifier)
    again = p2p.fit(CONFIG, Grid(), directory=folder / "stopped", **fit)
    assert equal(again.state, result.state)
    assert timeless(again.history) == timeless(result.history)
    model = p2p.load(folder / "whole")
    assert model.config == result.model.config == methods.for_method(CONFIG, "comet")
    assert p2p.Config.from_json(model.config.to_json()) == model.config
    batch = labelled_scenes()
    with pytest.raises(ValueError, match=r'the model masks pixels \(masking="soft"\), it chooses no groups'):
        p2p.predict(model, batch.images, batch.regions)
    with pytest.raises(ValueError, match="needs a trained classifier of whole images"):
        p2p.fit(CONFIG, Grid(), train=dataclasses.replace(fit["train"], whole_epochs=0), progress=False)


def test_soft_masks_are_judged_by_their_pixels(comet):
    model, batch = comet[0].model, labelled_scenes()
    found = p2p.evaluate(model, [batch], shares=(0.0, 0.1, 0.2, 1.0))
    mask = np.asarray(jax.jit(lambda x: jax.nn.sigmoid(model.importance(model.normalize(x))[..., 0]))(batch.images))
    np.testing.assert_allclose(found.hard_share, mask.mean(), rtol=1e-5)
    assert found.fidelity.insertion[0, -1] == found.fidelity.deletion[0, 0] == 1
    assert found.certainty is None
    assert "from top 10 %" in found.table()
    inverse = p2p.evaluate(model, [batch], shares=(), inverse=True)
    assert inverse.accuracy == found.accuracy
    on_object = [m[o].mean() - m[~o].mean() for m, o in zip(mask, batch.masks, strict=True)]
    assert np.sign(np.mean(on_object)) == np.sign(found.pixel_ap[0] - inverse.pixel_ap[0])
    inside = np.mean([(m > 0.5)[o].mean() for m, o in zip(mask, batch.masks, strict=True)])
    np.testing.assert_allclose(found.recall, inside, rtol=1e-5)
    np.testing.assert_allclose(inverse.recall, 1 - inside, rtol=1e-5)


def test_even_masks_and_black_boxes_are_judged_too(fresh_model):
    batch = labelled_scenes()
    even = dataclasses.replace(methods.for_method(CONFIG, "blackbox-pixel-mask"), threshold=0.25)
    found = p2p.evaluate(p2p.P2P(fresh_model.selector, fresh_model.classifier, even), [batch], shares=(0.1, 0.25))
    assert found.hard_share == found.threshold == 0.25
    np.testing.assert_allclose(found.precision, np.mean([m[evenly_spaced(32, 0.25)].mean() for m in batch.masks]))
    assert found.fidelity.insertion[0, 1] == 1  # the grid that it was classified by
    whole = p2p.evaluate(fresh_model, [batch], whole=True)
    assert whole.hard_share == 1
    assert whole.fidelity is whole.pixel_ap is None
    with pytest.raises(ValueError, match="inverse=True is about the soft masks of comet"):
        p2p.evaluate(fresh_model, [batch], inverse=True)


@pytest.mark.parametrize("method", ["real-x", "blackbox-pixel-mask"])
def test_the_other_methods_are_traced_with_the_real_networks(method):
    from jaxmoxi.p2p.training.compiled import compiled
    from jaxmoxi.p2p.training.objectives import Metrics
    from jaxmoxi.p2p.training.step import init_state

    train = dataclasses.replace(TRAIN, method=method)
    config = methods.for_method(CONFIG, method)
    optimizer, step = compiled(train, total=12, per_epoch=4)
    state = jax.eval_shape(lambda: init_state(p2p.init(jax.random.key(0), config), optimizer, method=method))
    after, _, loss = jax.eval_shape(
        lambda state, batch: step(state, Metrics(*[jnp.zeros(())] * 7), batch, jax.random.key(0), select=True),
        state,
        Grid().batch(0),
    )
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert loss.shape == ()
