"""JAX's debugging guards do not end a search, and a search has no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm

P = 9
WEIGHTS = jnp.asarray([3.0, -1, 4, 1, -5, 9, 2, -6, 5])
IMAGE = jax.random.uniform(jax.random.key(0), (6, 6, 3))
REGIONS = jm.grid_regions(6, 6, rows=3, cols=3)


def game(masks):
    return masks @ WEIGHTS


def classifier(images):
    return images.reshape(len(images), -1) @ jax.random.normal(jax.random.key(1), (108, 4))


DOORS = {
    "greedy_insertion": lambda v: jm.greedy_insertion(v, P, stop=jm.Stop(size=3)),
    "greedy_deletion": lambda v: jm.greedy_deletion(v, P, stop=jm.Stop(value=0.0)),
    "greedy_step": lambda v: jm.greedy_step(v, jm.greedy_init(v, P)),
    "greedy_images": lambda v: jm.greedy_images([v, v], P, stop=jm.Stop(size=2)),
    "single_player_order": lambda v: jm.single_player_order(v, P),
    "pairwise": lambda v: jm.pairwise_interactions(v, P),
    "shapley": lambda v: jm.sampled_shapley(jax.random.key(0), v, P, num_samples=3),
    "curve": lambda v: jm.deletion_curve(v, jnp.arange(P)),
    "beam": lambda v: jm.search.beam_search(v, P, max_size=4),
    "minimal": lambda v: jm.search.minimal_group(v, P, value=10.0),
    "backward": lambda v: jm.search.backward_elimination(v, P, value=10.0),
    "screened": lambda v: jm.search.screened_greedy(v, P, stop=jm.Stop(size=2)),
    "blockwise": lambda v: jm.search.blockwise_greedy(v, P, players_per_step=2, stop=jm.Stop(size=3)),
    "necessary": lambda v: jm.search.necessary_and_sufficient(v, P, value=10.0),
    "stability": lambda v: jm.search.stability([v], jnp.arange(P) < 3),
    "value_fn": lambda v: jm.pixel_value_fn(classifier, IMAGE, None, REGIONS)(jnp.ones((2, P), bool)),
}


@pytest.mark.parametrize("door", DOORS)
def test_debugging_nans_and_transfers_does_not_end_a_search(door):
    expected = DOORS[door](game)
    with jax.debug_nans(True):
        got = DOORS[door](game)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    if door not in ("shapley", "curve", "stability", "value_fn"):  # these make their arguments by jnp, in the guard
        with jax.transfer_guard("disallow"):
            DOORS[door](game)
    assert jax.config.jax_debug_nans is False


def test_a_users_own_nan_is_named_while_debugging():
    with jax.debug_nans(True), pytest.raises(jm.NaNValueError, match="at step 2, for player 5"):
        jm.greedy_insertion(lambda masks: jnp.where(masks[:, 5] & (masks.sum(1) == 2), jnp.nan, masks @ -WEIGHTS), P)


@pytest.mark.parametrize("search", [jm.greedy_insertion, jm.greedy_deletion])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_of_a_search_is_refused(search, compiled):
    def loss(image):
        return search(jm.pixel_value_fn(classifier, image, 1, REGIONS), P, stop=jm.Stop(size=2)).values[0]

    with pytest.raises(ValueError, match="the result of a search has no gradient.*v.masks.*stop_gradient"):
        jax.grad(jax.jit(loss) if compiled else loss)(IMAGE)


def test_a_search_inside_a_loss_is_a_constant():
    def loss(image, guided):
        v = jm.pixel_value_fn(classifier, image, 1, REGIONS)
        order = jm.greedy_insertion(v, P).order if guided else jnp.asarray(fixed)
        return v((jnp.arange(P) == order[0])[None])[0]

    fixed = np.asarray(jm.greedy_insertion(jm.pixel_value_fn(classifier, IMAGE, 1, REGIONS), P).order)
    np.testing.assert_allclose(jax.grad(loss)(IMAGE, True), jax.grad(loss)(IMAGE, False), rtol=1e-5, atol=1e-6)


def test_forward_derivatives_hold_the_choices():
    def first(scale):
        return jm.greedy_insertion(jm.pixel_value_fn(classifier, scale * IMAGE, 1, REGIONS), P).values[0]

    value, slope = jax.jvp(first, (jnp.float32(1),), (jnp.float32(1),))
    step = 1e-2
    np.testing.assert_allclose(slope, (first(1 + step) - first(1 - step)) / (2 * step), rtol=2e-2)
    assert np.isfinite(value)


def test_searches_on_the_host_say_so_under_grad():
    def loss(image):
        v = jm.pixel_value_fn(classifier, image, 1, REGIONS)
        return jm.search.necessary_and_sufficient(v, P, probability=0.3).value

    with pytest.raises(ValueError, match="outside jit, vmap and grad. Its result is a choice, which has no gradient"):
        jax.grad(loss)(IMAGE)


def test_group_searches_in_a_loss_are_constants_and_their_payoffs_have_no_gradient():
    def value(image):
        v = jm.pixel_value_fn(classifier, image, 1, REGIONS)
        return jm.search.backward_elimination(v, P, value=-100.0, insertion=True).value

    with pytest.raises(ValueError, match="the result of a search has no gradient.*v.masks.*stop_gradient"):
        jax.grad(value)(IMAGE)
    assert np.isnan(jax.jvp(value, (IMAGE,), (IMAGE,))[1])  # what is not known is not 0

    def loss(image, group=None):
        v = jm.pixel_value_fn(classifier, image, 1, REGIONS)
        found = jm.search.backward_elimination(v, P, value=float(level)).group if group is None else group
        return v(found[None])[0]

    v = jm.pixel_value_fn(classifier, IMAGE, 1, REGIONS)
    level = v(jnp.ones((1, P), bool))[0] - 0.1
    fixed = jm.search.backward_elimination(v, P, value=float(level)).group
    np.testing.assert_allclose(jax.grad(loss)(IMAGE), jax.grad(loss)(IMAGE, fixed), rtol=1e-5, atol=1e-6)
