"""One training step: what it changes, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p import distribution
from jaxmoxi.p2p.data import Batch, synthetic_scenes
from jaxmoxi.p2p.model import fill_colour
from jaxmoxi.p2p.training import losses
from jaxmoxi.p2p.training import step as training

CONFIG = p2p.Config(
    num_classes=3,
    num_groups=17,
    image_size=32,
    classifier=p2p.ViTConfig(hidden_size=32, num_layers=2, num_heads=2, mlp_dim=64, patch_size=8),
    selector="small",
    embedding_size=3,
)
TRAIN = p2p.TrainConfig(num_samples=2, num_epochs=10)
OPTIMIZER = optax.adam(3e-3)


@functools.cache
def batch(count=12, seed=1):
    scenes = synthetic_scenes(jax.random.key(seed), count, image_size=32, num_classes=3)
    blocks = jnp.repeat(jnp.repeat(jnp.arange(16).reshape(4, 4), 8, 0), 8, 1)
    return Batch(scenes.images, jnp.broadcast_to(blocks, (count, 32, 32)), scenes.labels)


def jitted(train, **options):
    return jax.jit(
        functools.partial(
            training.train_step, objective=train.objective, optimizer=OPTIMIZER, steps_per_epoch=20, **options
        )
    )


@pytest.fixture(scope="module")
def step():
    return jitted(TRAIN)


@pytest.fixture(scope="module")
def trained(step):
    state = training.init_state(p2p.init(jax.random.key(0), CONFIG), OPTIMIZER)
    history = []
    for _ in range(40):
        state, metrics = step(state, batch(), jax.random.key(2))
        history.append(jax.device_get(metrics))
    return state, history


def test_it_learns(trained):
    _, history = trained
    assert np.mean([m.target for m in history[20:40]]) < 0.9 * np.mean([m.target for m in history[:5]])
    assert all(np.isfinite(m.loss) for m in history)
    for m in history[::20]:
        np.testing.assert_allclose(m.loss, m.target + m.sparsity + m.covariance, rtol=1e-5)
        assert 0 <= m.soft_share <= 1
        assert 0 <= m.hard_share <= 1


@pytest.mark.slow
def test_large_logits_cost_what_the_configuration_says():
    config = dataclasses.replace(CONFIG, dynamic_threshold=False, embedding_size=0)
    model = p2p.init(jax.random.key(0), config)
    state = training.init_state(model, OPTIMIZER)
    step = jitted(dataclasses.replace(TRAIN, num_samples=1, logit_weight=0.5))
    _, m = step(state, batch(), jax.random.key(2))
    mu = jax.jit(lambda x, r: model.group_logits(model.normalize(x), r, jnp.asarray([0.3]))[0][0])(*batch()[:2])
    assert mu.shape == (12, 17)
    np.testing.assert_allclose(m.loss - m.target - m.sparsity - m.covariance, 0.5 * np.mean(mu**2), rtol=1e-3)


@pytest.mark.parametrize("options", [{"threshold": 0.1, "dynamic_threshold": False}, {"exact_budget": True}, {}])
def test_a_frozen_selector_trains_the_classifier_through_the_masks_of_test_time(options):
    config = dataclasses.replace(CONFIG, **options)
    optimizer = optax.adamw(3e-3, weight_decay=0.1)
    model = p2p.init(jax.random.key(0), config)
    state = training.init_state(model, optimizer)
    step = jax.jit(functools.partial(
        training.train_step, objective=TRAIN.objective, optimizer=optimizer, steps_per_epoch=20, freeze_selector=True
    ))  # fmt: skip
    after, metrics = step(state, batch(), jax.random.key(2))
    for old, new in zip(jax.tree.leaves(model.selector), jax.tree.leaves(after.model.selector), strict=True):
        np.testing.assert_array_equal(old, new)
    kernels = [m.classifier["head"]["kernel"] for m in (model, after.model)]
    assert not np.array_equal(*kernels)
    assert float(metrics.loss) == float(metrics.target)
    assert (float(metrics.sparsity), float(metrics.covariance)) == (0, 0)

    images, regions, labels = model.normalize(batch().images), batch().regions, np.asarray(batch().labels)
    tau = jax.random.uniform(
        jax.random.fold_in(jax.random.key(2), 0), (12,), minval=config.min_threshold, maxval=config.max_threshold
    )
    if not config.dynamic_threshold:
        tau = jnp.full(12, 0.1)

    @jax.jit
    def expected(images, regions, tau):
        logits, shares, _ = model.group_logits(images, regions, tau)
        rows = jnp.arange(12)
        kept = model.keep(logits, shares, tau)[rows, rows]
        return model.classify(images, kept, regions), jnp.mean(jnp.sum(kept * shares, -1))

    log_probs, share = expected(images, regions, tau)
    np.testing.assert_allclose(metrics.target, -np.mean(np.asarray(log_probs)[np.arange(12), labels]), rtol=1e-4)
    np.testing.assert_allclose(metrics.hard_share, share, rtol=1e-5)
    assert 0 < share < 1


def test_a_frozen_selector_selects_in_full_precision():
    model = p2p.init(jax.random.key(0), CONFIG)
    state = training.init_state(model, OPTIMIZER)
    full, half = (
        jitted(TRAIN, freeze_selector=True, computing=training.Computing(precision=p))(
            state, batch(), jax.random.key(2)
        )[1]
        for p in ("float32", "bfloat16")
    )
    assert float(half.hard_share) == float(full.hard_share)
    assert float(half.soft_share) == float(full.soft_share)
    assert float(half.target) != float(full.target)


@pytest.mark.parametrize(
    "options",
    [{}, {"freeze_selector": True}, {"select": False}, {"computing": training.Computing(accumulate=2)}],
)
def test_a_teacher_is_a_share_of_the_target(options):
    model, teacher = (p2p.init(jax.random.key(seed), CONFIG) for seed in (0, 5))
    optimizer = optax.sgd(0.1)

    def after(weight, taught):
        train = dataclasses.replace(TRAIN, teacher_weight=weight, **{"teacher_temperature": 3.0} if weight else {})
        step = jax.jit(functools.partial(
            training.train_step, objective=train.objective, optimizer=optimizer, steps_per_epoch=20, **options
        ))  # fmt: skip
        state = training.init_state(model, optimizer, teacher=taught and taught.classifier)
        return step(state, batch(), jax.random.key(2))

    (plain, one), (half, two), (full, three) = after(0.0, None), after(0.5, teacher), after(1.0, teacher)
    np.testing.assert_allclose(two.target, (one.target + three.target) / 2, rtol=1e-5)
    assert float(one.target) != pytest.approx(float(three.target), rel=1e-2)
    for kept, given in zip(jax.tree.leaves(half.frozen), jax.tree.leaves(teacher.classifier), strict=True):
        np.testing.assert_array_equal(kept, given)
    assert plain.frozen is None
    heads = [s.model.classifier["head"]["kernel"] for s in (plain, half, full)]
    np.testing.assert_allclose(heads[1], (heads[0] + heads[2]) / 2, atol=1e-6)  # so are its gradients


@pytest.mark.parametrize("samples", [1, 2])
def test_who_answers_as_the_teacher_does_has_nothing_to_learn_from_it(samples):
    """Of many classes and sure answers, whose small probabilities have a floor in the cross entropy."""
    config = dataclasses.replace(CONFIG, num_classes=100)
    model = p2p.init(jax.random.key(0), config)
    sure = jax.tree.map(lambda x: x, model.classifier)
    sure["head"] = jax.tree.map(lambda x: 60 * x, model.classifier["head"])
    model = p2p.P2P(model.selector, sure, config)
    colour = fill_colour(config) * jnp.asarray(config.std) + jnp.asarray(config.mean)  # looks the same through any mask
    blank = batch()._replace(images=jnp.broadcast_to(colour, (12, 32, 32, 3)).astype(jnp.float32))
    log_probs = model.classify(blank.images, jnp.ones((12, 17), bool), blank.regions)
    assert float(log_probs.min()) == pytest.approx(np.log(1e-6), abs=1e-2)  # the floor
    train = dataclasses.replace(TRAIN, num_samples=samples, teacher_weight=1.0)
    for images, options in ((batch(), {"select": False}), (blank, {})):
        state = training.init_state(model, OPTIMIZER, teacher=model.classifier)
        _, metrics = jitted(train, **options)(state, images, jax.random.key(2))
        assert float(metrics.target) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("method", ["p2p", "comet"])
def test_a_teacher_that_is_missing_is_asked_for(method):
    objective = dataclasses.replace(TRAIN, teacher_weight=0.5).objective
    state = training.init_state(p2p.init(jax.random.key(0), CONFIG), OPTIMIZER, method=method)
    with pytest.raises(ValueError, match="teacher_weight needs a teacher, init_state"):
        training.train_step(state, batch(), jax.random.key(2), objective=objective, optimizer=OPTIMIZER,
                            steps_per_epoch=20, method=method)  # fmt: skip
    with pytest.raises(ValueError, match="a teacher is about what P2P's classifier learns; got the method comet"):
        training.init_state(state.model, OPTIMIZER, method="comet", teacher=state.model.classifier)


def test_the_divergence_from_a_teacher_is_hintons():
    ours, theirs = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32) * 3

    def softened(logits, t):
        powers = np.exp(logits / t)
        return powers / powers.sum(-1, keepdims=True)

    for t in (1.0, 2.0, 4.0):
        p, q = softened(theirs, t), softened(ours, t)
        expected = t**2 * np.mean(np.sum(p * np.log(p / q), -1))
        for given in (jnp.asarray(ours), jax.nn.log_softmax(ours)):  # a constant of the logits has no part
            np.testing.assert_allclose(losses.divergence_from(given, jnp.asarray(theirs), t), expected, rtol=2e-5)
    mean = losses.exact_log_probs(jnp.stack([jnp.asarray(ours), jnp.asarray(theirs)]))
    np.testing.assert_allclose(np.exp(mean), (softened(ours, 1) + softened(theirs, 1)) / 2, rtol=1e-5)


def test_without_a_full_first_epoch_the_weight_only_rises():
    published, gentle = (
        [float(losses.regulariser_weight(epoch, 20, 10.0, full_first_epoch=full)) for epoch in range(20)]
        for full in (True, False)
    )
    assert (published[0], gentle[0]) == (10.0, pytest.approx(0.1))
    assert published[1:] == gentle[1:]
    assert np.all(np.diff(gentle) >= 0)


def test_geometric_growth_is_by_one_factor_and_ends_in_the_middle():
    halves = [
        float(losses.regulariser_weight(epoch / 2, 6, 10.0, full_first_epoch=False, growth="geometric"))
        for epoch in range(-2, 13)
    ]
    np.testing.assert_allclose(halves[:3], 0.1, rtol=1e-5)  # before the epochs that select, and at their start
    np.testing.assert_allclose(np.divide(halves[3:9], halves[2:8]), 100 ** (1 / 6), rtol=1e-5)
    np.testing.assert_allclose(halves[8:], 10.0, rtol=1e-6)


def test_geometric_growth_changes_the_weight_with_every_step():
    config = dataclasses.replace(CONFIG, dynamic_threshold=False, threshold=0.1)
    state = training.init_state(p2p.init(jax.random.key(0), config), OPTIMIZER)
    step = jitted(dataclasses.replace(TRAIN, num_epochs=4, full_first_epoch=False, growth="geometric"))

    def paid(at):  # an epoch has 20 steps, so 40 are the middle
        return float(step(dataclasses.replace(state, step=jnp.int32(at)), batch(), jax.random.key(2))[1].sparsity)

    first = paid(0)
    assert paid(3) == pytest.approx(first * 100 ** (3 / 40), rel=1e-4)
    assert paid(40) == pytest.approx(first * 100, rel=1e-4)


def test_the_same_key_and_step_give_the_same_state(step, trained):
    state, _ = trained
    once, twice = step(state, batch(), jax.random.key(5))[0], step(state, batch(), jax.random.key(5))[0]
    other = step(state, batch(), jax.random.key(6))[0]
    pairs = zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    pairs = zip(jax.tree.leaves(once.model), jax.tree.leaves(other.model), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)
    assert int(once.step) == int(state.step) + 1


def test_prediction_sees_only_what_is_kept(trained):
    model = trained[0].model
    data = batch(4, seed=9)
    out = p2p.predict(model, data.images, data.regions, certainty=0.7)
    hidden = jnp.where(out.pixel_mask[..., None], data.images, 255 - data.images)
    seen = jax.jit(lambda x, kept, r: model.classify(model.normalize(x), kept, r))(hidden, out.group_mask, data.regions)
    np.testing.assert_allclose(seen, out.logits, atol=1e-4)


@pytest.mark.slow
def test_a_fixed_threshold_and_independent_groups():
    config = p2p.Config(
        num_classes=3, num_groups=16, image_size=32, selector="small", embedding_size=0, dynamic_threshold=False,
        classifier=p2p.ViTConfig(hidden_size=16, num_layers=1, num_heads=1, mlp_dim=32, patch_size=16),
    )  # fmt: skip
    step = jitted(p2p.TrainConfig(straight_through=True, regulariser="l1"))
    state = training.init_state(p2p.init(jax.random.key(0), config), OPTIMIZER)
    state, metrics = step(state, batch(), jax.random.key(2))
    assert metrics.covariance == 0
    assert np.isfinite(metrics.loss)
    out = p2p.predict(state.model, batch().images, batch().regions)
    np.testing.assert_array_equal(out.threshold, np.full(12, np.float32(config.threshold)))
    assert out.num_evaluations.tolist() == [1] * 12


def test_the_black_box_twin_learns_and_leaves_the_selector_alone():
    state = training.init_state(p2p.init(jax.random.key(0), CONFIG), OPTIMIZER)
    before, losses = state.model.selector, []

    step = jitted(TRAIN, select=False)
    for _ in range(30):
        state, metrics = step(state, batch(), jax.random.key(2))
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.7 * losses[0]
    assert metrics.hard_share == metrics.soft_share == 1
    assert metrics.sparsity == metrics.covariance == 0
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(state.model.selector), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def reranking():
    config = dataclasses.replace(CONFIG, threshold_input="rerank")
    step = jitted(dataclasses.replace(TRAIN, num_samples=1))
    model = p2p.init(jax.random.key(0), config)
    state = training.init_state(model, OPTIMIZER)
    for _ in range(5):
        state, metrics = step(state, batch(), jax.random.key(2))
    assert np.isfinite(metrics.loss)
    return model, state.model


def logits_at(model, taus):
    data = batch(4, seed=9)
    return model.group_logits(model.normalize(data.images), data.regions, jnp.asarray(taus))


def test_a_threshold_that_only_shifts_moves_all_groups_alike(trained):
    logits, shares, embeddings = logits_at(trained[0].model, [0.1, 0.9])
    moved = np.asarray(logits[1] - logits[0])
    assert embeddings.shape == (4, CONFIG.num_groups, CONFIG.embedding_size)
    assert (moved[np.asarray(shares) == 0] == 0).all()
    np.testing.assert_allclose(moved[np.asarray(shares) > 0], 0.8 * trained[0].model.shift()[0], atol=1e-5)


@pytest.mark.slow
def test_a_reranking_threshold_starts_as_a_shift_and_learns_to_reorder(reranking):
    fresh, learned = reranking
    for model, reorders in ((fresh, False), (learned, True)):
        logits, shares, _ = logits_at(model, [0.1, 0.9])
        moved = np.asarray(logits[1] - logits[0])[np.asarray(shares) > 0]
        assert (moved.std() > 1e-5) == reorders
    out = p2p.predict(learned, batch(4).images, batch(4).regions, certainty=[0.4, 0.9])
    assert np.isfinite(out.logits).all()


def test_the_groups_of_a_budget_are_the_likeliest_that_fit():
    logits = jnp.asarray([[1.0, 3.0, -1.0, 2.0]])
    shares = jnp.asarray([[0.2, 0.3, 0.4, 0.1]])
    for budget, expected in ((0.05, []), (0.3, [1]), (0.45, [1, 3]), (0.6, [0, 1, 3]), (1.0, [0, 1, 2, 3])):
        fits = distribution.within_budget(jnp.ones((1, 4)), logits, shares, jnp.asarray([budget]))
        assert np.flatnonzero(fits[0]).tolist() == expected
    half = distribution.within_budget(jnp.full((1, 4), 0.5), logits, shares, jnp.asarray([0.3]))
    assert np.flatnonzero(half[0]).tolist() == [0, 1, 3]


@pytest.mark.slow
def test_an_exact_budget_is_never_exceeded():
    config = dataclasses.replace(CONFIG, exact_budget=True)
    step = jitted(dataclasses.replace(TRAIN, regulariser_weight=0.0, num_samples=1))
    model = p2p.init(jax.random.key(0), config)
    state, metrics = step(training.init_state(model, OPTIMIZER), batch(), jax.random.key(2))
    assert np.isfinite(metrics.loss)
    assert metrics.hard_share < 0.6  # without a budget, and a regulariser, half of the groups and more
    taus = jnp.asarray([0.05, 0.3, 0.5, 1.0])
    logits, shares, _ = logits_at(model, taus)
    everything = jnp.abs(logits)  # every group is likely
    kept = model.keep(everything, shares, taus)
    areas = np.asarray((kept * shares).sum(-1))
    assert (areas <= np.asarray(taus)[:, None] + 1e-6).all()
    np.testing.assert_allclose(areas[-1], 1)
    assert (areas[1:3] > np.asarray(taus)[1:3, None] - 1 / 16).all()  # and what fits is kept
    out = p2p.predict(state.model, batch().images, batch().regions, certainty=[0.4, 0.999])
    assert (out.pixel_mask.mean((2, 3)) <= out.threshold + 1e-6).all()


@pytest.mark.parametrize("select", [True, False])
def test_the_statistics_of_batch_norm_travel_with_the_state(select):
    """Traced, not run: the published selector and a ResNet take minutes to compile."""
    config = p2p.Config(num_classes=3, num_groups=16, image_size=32, classifier=p2p.ResNetConfig(18))
    state = jax.eval_shape(lambda key: training.init_state(p2p.init(key, config), OPTIMIZER), jax.random.key(0))

    after, metrics = jax.eval_shape(jitted(TRAIN, select=select), state, batch(), jax.random.key(1))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics.loss.shape == ()
