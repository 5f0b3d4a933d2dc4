"""A model in training mode is refused at every door, whatever it was written in; so are answers of the wrong kind."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.bridges import as_shapiq_game
from jaxmoxi.games import probe
from jaxmoxi.pytrees import record

P, K = 6, 5
IMAGE = jax.random.uniform(jax.random.key(0), (8, 8, 3))
REGIONS = jm.grid_regions(8, 8, rows=2, cols=3)
WEIGHTS = jax.random.normal(jax.random.key(1), (3, K))


class Net(nnx.Module):
    """Convolution, then what differs between training and evaluation, then a head."""

    def __init__(self, middle, rngs):
        self.conv, self.head = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(4, K, rngs=rngs)
        self.middle = nnx.BatchNorm(4, rngs=rngs) if middle == "norm" else nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, images):
        return self.head(self.middle(self.conv(images)).mean((1, 2)))


def split(model):
    structure, state = nnx.split(model)
    return jax.tree_util.Partial(lambda state, images: nnx.merge(structure, state)(images), state)


@pytest.mark.parametrize("middle", ["norm", "dropout"])
@pytest.mark.parametrize("door", ["split", "module"])
def test_flax_in_training_is_refused_and_in_evaluation_served(middle, door):
    model = Net(middle, nnx.Rngs(0))
    give = split if door == "split" else lambda model: model
    with pytest.raises(ValueError, match=r"answer.*training mode.* model.eval\(\) before nnx.split"):
        jm.pixel_value_fn(give(model), IMAGE, 1, REGIONS)
    model.eval()
    v = jm.pixel_value_fn(give(model), IMAGE, 1, REGIONS)
    np.testing.assert_array_equal(v(jnp.ones((2, P), bool)), np.repeat(v(jnp.ones((1, P), bool)), 2))
    jm.pixel_value_fn(jm.from_nnx(Net(middle, nnx.Rngs(0))), IMAGE, 1, REGIONS)  # the bridge switches over by itself


def normalised(images):
    """A batch normalisation written by hand: no random number, but other rows matter."""
    means = images.mean((1, 2))
    return (means - means.mean(0)) / (means.std(0) + 1e-3) @ WEIGHTS


def test_dependence_on_the_batch_is_noticed_without_chance():
    with pytest.raises(ValueError, match="depends on chance or on the other images of its batch"):
        jm.pixel_value_fn(normalised, IMAGE, 1, REGIONS)


def test_dependence_on_the_size_of_the_batch_is_noticed():
    for shared in (lambda x: x.mean((1, 2)) @ WEIGHTS / len(x), lambda x: (x.mean((1, 2)) @ WEIGHTS) * (len(x) > 1)):
        with pytest.raises(ValueError, match="depends on chance or on the other images of its batch"):
            jm.pixel_value_fn(shared, IMAGE, 1, REGIONS)


def test_company_that_tells_nothing_is_not_remembered():
    """A batch of likenesses hides a batch normalisation; the next image of the same shapes shows it."""
    jm.pixel_value_fn(normalised, jnp.zeros((8, 8, 3)), 1, REGIONS)
    with pytest.raises(ValueError, match="depends on chance or on the other images of its batch"):
        jm.pixel_value_fn(normalised, IMAGE, 1, REGIONS)


def noisy_values(masks):
    return masks.sum(1) + jax.random.normal(jax.random.key(0), (len(masks),))


DOORS = {
    "evaluate": lambda v: jm.evaluate(v, jnp.ones((4, P), bool)),
    "greedy_insertion": lambda v: jm.greedy_insertion(v, P),
    "greedy_deletion": lambda v: jm.greedy_deletion(v, P),
    "greedy_init": lambda v: jm.greedy_init(v, P),
    "greedy_images": lambda v: jm.greedy_images([v], P),
    "single_player_order": lambda v: jm.single_player_order(v, P),
    "shapley": lambda v: jm.self_context_shapley(v, P),
    "pairwise": lambda v: jm.pairwise_interactions(v, P),
    "sampled_shapley": lambda v: jm.sampled_shapley(jax.random.key(0), v, P, num_samples=2),
    "curve": lambda v: jm.insertion_curve(v, jnp.arange(P)),
    "minimal_group": lambda v: jm.search.minimal_group(v, P, value=3.0),
    "backward_elimination": lambda v: jm.search.backward_elimination(v, P, value=3.0),
    "beam": lambda v: jm.search.beam_search(v, P, max_size=3),
    "screened": lambda v: jm.search.screened_greedy(v, P),
    "bidirectional": lambda v: jm.search.bidirectional_greedy(v, P),
    "blockwise": lambda v: jm.search.blockwise_greedy(v, P, players_per_step=2),
    "stability": lambda v: jm.search.stability([v], jnp.ones(P, bool)),
    "sharded": lambda v: jm.greedy_insertion(jm.shard_coalitions(v, jax.make_mesh((8,), ("c",))), P),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_looks_at_a_function_of_the_users_own(door):
    with pytest.raises(ValueError, match=r"two answers in one batch \(.* and .*\). It is probably in training mode"):
        DOORS[door](noisy_values)


def test_shapiq_looks_too():
    pytest.importorskip("shapiq")
    with pytest.raises(ValueError, match="two answers in one batch"):
        as_shapiq_game(noisy_values, P)


ANSWERS = [np.array([[1.0], [0.0], [1.0]]), np.array([[1.0], [0.5], [0.5]]), np.array([[1.0]])]


def test_one_structure_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(probe, "_ask", lambda game, num_players: asked.append(1) or ANSWERS)

    @record
    class Weighted:
        weights: jax.Array

        def __call__(self, masks):
            return masks @ self.weights

    for scale in (1.0, 2.0, 3.0):
        jm.evaluate(Weighted(scale * jnp.arange(P)), jnp.ones((4, P), bool))
    assert len(asked) == 1
    jm.evaluate(Weighted(jnp.arange(P + 1.0)), jnp.ones((4, P + 1), bool))
    assert len(asked) == 2


def test_inside_jit_nobody_can_look():
    values = jax.jit(lambda masks: jm.evaluate(noisy_values, masks))(jnp.ones((3, P), bool))
    assert values.shape == (3,)
    image_values = jax.jit(lambda image: jm.pixel_value_fn(normalised, image, 1, REGIONS)(jnp.ones((2, P), bool)))(
        IMAGE
    )
    assert image_values.shape == (2,)


def test_rounding_is_no_difference():
    half = jax.tree_util.Partial(
        lambda w, images: (images.astype(jnp.bfloat16).mean((1, 2)) @ w).astype(jnp.float32),
        WEIGHTS.astype(jnp.bfloat16),
    )
    jm.pixel_value_fn(half, IMAGE, 1, REGIONS)
    rounding = lambda masks: 1e6 + masks @ jnp.arange(1.0, P + 1) + 1e-5 * jnp.arange(len(masks))  # noqa: E731
    jm.evaluate(rounding, jnp.ones((3, P), bool))


def test_nan_keeps_its_own_error():
    with pytest.raises(jm.NaNValueError, match="of the start, with no player visible"):
        jm.greedy_insertion(lambda masks: jnp.where(masks.any(1), 1.0, jnp.nan), P)


def softmaxed(images):
    return jax.nn.softmax(4 * images.mean((1, 2)) @ WEIGHTS)


def test_probabilities_are_warned_of_once():
    with pytest.warns(UserWarning, match=r'sum to 1: they look like probabilities.*link="probabilities"') as caught:
        v = jm.pixel_value_fn(softmaxed, IMAGE, 1, REGIONS)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jm.greedy_insertion(v, P)
        jm.pixel_value_fn(softmaxed, IMAGE, 1, REGIONS, link="probabilities")
        jm.pixel_value_fn(lambda images: images.mean((1, 2)) @ jnp.abs(WEIGHTS), IMAGE, 1, REGIONS)  # not negative


def test_answers_that_do_not_fit_their_link():
    with pytest.raises(ValueError, match=r'link="probabilities" expects rows.*got numbers from .* with sums from'):
        jm.pixel_value_fn(lambda images: images.mean((1, 2)) @ WEIGHTS, IMAGE, 1, REGIONS, link="probabilities")
    with pytest.warns(UserWarning, match=r"answers all lie in \[0, 1\].*return logits"):
        jm.pixel_value_fn(
            lambda images: jax.nn.sigmoid(images.mean((1, 2)) @ WEIGHTS), IMAGE, 1, REGIONS, link="sigmoid"
        )


def test_an_equinox_module_of_ones_own_is_tried_too():
    eqx = pytest.importorskip("equinox")

    class Own(eqx.Module):
        dropout: eqx.nn.Dropout
        head: eqx.nn.Linear

        def __call__(self, images):
            keys = jax.random.split(jax.random.key(1), len(images))
            return jax.vmap(lambda x, k: self.head(self.dropout(x.mean((0, 1)), key=k)))(images, keys)

    own = Own(eqx.nn.Dropout(0.3), eqx.nn.Linear(3, K, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="two answers in one batch.*equinox.nn.inference_mode"):
        jm.pixel_value_fn(own, IMAGE, 1, REGIONS)
    jm.pixel_value_fn(eqx.nn.inference_mode(own), IMAGE, 1, REGIONS)
