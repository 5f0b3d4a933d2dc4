"""Removals drawn by a key: what each game hides, where its players are, and that it is the same game again."""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.moved import ImputedPixels, MovedPixels, move
from jaxmoxi.games.removals import RemovalKind
from jaxmoxi.metrics import noisy_linear_imputation
from support.games import every_coalition
from support.search import small_model

KEY = jax.random.key(3)
KINDS = get_args(RemovalKind)
# Not square, no two of one size, none of them its own mirror image.
REGIONS = jnp.asarray([[0] * 5 + [1] * 3] * 3 + [[2] * 6 + [1] * 2] * 2 + [[2] * 2 + [3] * 6] * 3, jnp.int32)
MASKS = jnp.asarray(every_coalition(4))


@pytest.fixture(scope="module")
def tiny():
    return small_model()


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(5).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def games(tiny, photos):
    model, image = tiny
    return jm.games.removals(KEY, model, image, 1, REGIONS, count=14, photos=photos, shift=2)


class Convolutional(NamedTuple):
    logits: Any
    token_grid: None = None


def content(image, regions):
    """The pixels of each player, in no order."""
    image, regions = np.asarray(image), np.asarray(regions)
    return [np.sort(image[regions == p], axis=0) for p in range(regions.max() + 1)]


def test_every_kind_comes_in_turn(games, tiny):
    assert len(games) == 14
    for i, kind in enumerate(KINDS):
        for v in (games[i], games[7 + i]):
            assert v.sized == (kind == "tokens")
            assert isinstance(v, ImputedPixels) == (kind == "inpaint")
            assert (v.num_players, v.payoff, int(v.target)) == (4, "log_odds", 1)
    robust = jm.robust_value_fn(games)
    assert [stack.count for stack in robust.stacks] == [2, 10, 2]
    fills = [v for v in games if type(v) is MovedPixels]
    mean, blur, zero, noise, photo = fills[:5]
    np.testing.assert_allclose(mean.fill, jnp.broadcast_to(mean.image.mean((0, 1)), (8, 8, 3)), atol=1e-6)
    assert not np.asarray(zero.fill).any()
    still = move(move(blur.image, jnp.array([-blur.by[0], -blur.by[1], 0])), jnp.array([0, 0, blur.by[2]]))
    np.testing.assert_allclose(blur.fill, move(jm.blur_image(still), blur.by), atol=1e-6)
    own = {tuple(pixel) for pixel in np.asarray(noise.image).reshape(-1, 3)}
    assert {tuple(pixel) for pixel in np.asarray(noise.fill).reshape(-1, 3)} < own
    assert np.isin(photo.fill, np.random.default_rng(5).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)).all()


def test_players_move_with_the_image(tiny):
    model, image = tiny
    games = jm.games.removals(KEY, model, image, 1, REGIONS, count=12, kinds=("zero",), shift=3, brightness=0.0)
    moves = np.stack([v.by for v in games])
    assert len(np.unique(moves, axis=0)) > 8
    assert set(moves[:, 2]) == {0, 1}
    assert np.abs(moves).max() == 3
    for v in games:
        for mine, theirs in zip(content(v.image, v.regions), content(image, REGIONS), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(v.player_sizes(4), jm.region_sizes(REGIONS, 4))
    mirrored = next(v for v in games if v.by[2])
    by = [int(x) for x in mirrored.by[:2]]
    np.testing.assert_array_equal(mirrored.image, np.roll(np.asarray(image)[:, ::-1], by, (0, 1)))


def test_a_game_of_pixels_is_that_of_its_moved_image(games, tiny):
    model, _ = tiny
    for v in (games[1], games[4]):
        want = jm.pixel_value_fn(model.logits, v.image, 1, v.regions, fill=v.fill)
        np.testing.assert_allclose(jm.evaluate(v, MASKS), jm.evaluate(want, MASKS), rtol=1e-4, atol=1e-5)


def test_pixels_that_are_blended_are_those_before_the_move(tiny):
    model, image = tiny
    games = jm.games.removals(KEY, model, image, 1, REGIONS, count=4, kinds=("mean",), shift=3)
    shares = jm.visible_pixels(MASKS, REGIONS).astype(jnp.float32)
    for v in games:
        assert v.by.any()
        np.testing.assert_allclose(v.blended(shares).values, v(MASKS), rtol=1e-4, atol=1e-5)


def test_tokens_follow_the_players(tiny):
    model, image = tiny
    games = jm.games.removals(KEY, model, image, 1, None, count=4, kinds=("tokens",), shift=1, brightness=0.0)
    for v in games:
        assert v.tokens_per_player == 1
    flat = [tuple(v.players.tolist()) for v in games]
    assert set(flat) == {(0, 1, 2, 3), (1, 0, 3, 2)}  # mirrored, the left players own the tokens on the right
    rows = MASKS[1:15]
    for v in games:
        content = jnp.take(rows, v.players, axis=1)
        want = model.encode_tokens(jax.tree.map(lambda t: jnp.broadcast_to(t, (14, *t.shape)), v.tokens), content)
        np.testing.assert_allclose(v.logits(rows), want, rtol=1e-4, atol=1e-5)
    still = jm.games.removals(KEY, model, image[:, ::-1], 1, None, count=4, kinds=("tokens",), shift=0, flip=False)[0]
    assert tuple(still.players.tolist()) == (0, 1, 2, 3)
    whole = jax.tree.map(lambda t: t[None], still.tokens)
    np.testing.assert_allclose(still.logits(MASKS[15:]), model.encode_tokens(whole, jnp.ones((1, 4), bool)), rtol=1e-4)


def test_what_is_imputed_is_roads_guess_and_depends_on_its_coalition_alone(games, tiny):
    model, _ = tiny
    v = games[KINDS.index("inpaint")]
    assert not v.gated
    assert not v.blends
    rows = MASKS[jnp.array([5, 10, 0, 15])]
    images = []
    for shown in jm.visible_pixels(rows, v.regions):
        guess = noisy_linear_imputation(KEY, v.image, ~shown, noise=0.0)
        images.append(jnp.where(shown[..., None], v.image, guess + v.fill))
    want = model.logits(jnp.stack(images))
    together = jax.jit(lambda v, rows: v.logits(rows))(v, rows)
    np.testing.assert_allclose(together, want, rtol=1e-3, atol=1e-4)
    alone = jm.evaluate(v, rows[:1])
    np.testing.assert_allclose(alone, jm.evaluate(v, rows)[:1], rtol=1e-5, atol=1e-6)
    assert float(jnp.std(v.fill)) == pytest.approx(0.01 * float(jnp.std(v.image)), rel=0.2)
    with pytest.raises(jm.InputError, match="the gradient needs"):
        v.relaxed(jnp.ones((1, 4)))
    with pytest.raises(jm.InputError, match="hides no pixels"):
        v.blended(jnp.ones((1, 8, 8)))


def test_the_same_key_draws_the_same_games_and_more_of_them_begin_alike(games, tiny, photos):
    model, image = tiny
    again = jm.games.removals(KEY, model, image, 1, REGIONS, count=7, photos=list(photos), shift=2)
    for mine, theirs in zip(again, games, strict=False):
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    other = jm.games.removals(jax.random.key(4), model, image, 1, REGIONS, count=7, photos=photos, shift=2)
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(again[1:], other[1:], strict=True))


def test_nothing_varies_where_nothing_may(tiny):
    model, image = tiny
    still = {"shift": 0, "flip": False, "brightness": 0.0}
    games = jm.games.removals(KEY, model, image, 1, REGIONS, count=2, kinds=("tokens", "mean"), **still)
    plain = jm.metrics.value_fns(model, image, 1, REGIONS, removals=("tokens", "mean"))
    for v, want in zip(games, plain.values(), strict=True):
        np.testing.assert_allclose(jm.evaluate(v, MASKS), jm.evaluate(want, MASKS), rtol=1e-5)
    bright = jm.games.removals(KEY, model, image, 1, REGIONS, count=9, kinds=("zero",), shift=0, flip=False)
    levels = np.array([float((v.image - image).mean() / image.std()) for v in bright])
    assert np.abs(levels).max() <= 0.2
    assert levels.min() < 0 < levels.max()
    for v in bright:
        assert (v.image <= image.max((0, 1))).all()
        assert (v.image >= image.min((0, 1))).all()


@pytest.mark.filterwarnings("ignore:the function is given this image as it is")
def test_functions_of_other_images():
    """Whole numbers, two channels, a target to be found, and no tokens."""
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (9, 7, 2)), jnp.uint8)
    regions = jm.grid_regions(9, 7, rows=2, cols=2)

    def logits(images):
        return images.astype(jnp.float32).mean((1, 2)) @ jnp.array([[0.0, 1.0, 0.1], [0.1, 1.0, 0.0]])

    games = jm.games.removals(KEY, Convolutional(logits), image, None, regions, count=5, payoff="logit")
    assert [type(v) for v in games] == [MovedPixels] * 4 + [ImputedPixels]
    for v in games:
        assert v.image.dtype == jnp.uint8
        assert int(v.target) == 1
        assert np.isfinite(jm.evaluate(v, MASKS)).all()
    plain = jm.games.removals(KEY, logits, image, 1, regions, count=5, payoff="logit")
    jax.tree.map(np.testing.assert_array_equal, plain[0].image, games[0].image)


def test_inside_jit(tiny, games, photos):
    model, image = tiny

    @jax.jit
    def values(key, image):
        made = jm.games.removals(key, model, image, 1, REGIONS, count=7, photos=photos, shift=2)
        return jm.robust_value_fn(made)(MASKS)

    want = jm.evaluate(jm.robust_value_fn(games[:7]), MASKS)
    np.testing.assert_allclose(values(KEY, image), want, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ("grey",)}, "a sequence of kinds among tokens, mean, blur, zero, noise, photo, inpaint; got"),
        ({"kinds": "zero"}, "a sequence of kinds"),
        ({"kinds": ()}, "a sequence of kinds"),
        ({"kinds": ("zero", "zero")}, "each of the kinds once"),
        ({"kinds": ("photo",)}, r'"photo" needs other photos to take pixels from: give photos=\[...\]'),
        ({"kinds": ("zero",), "photos": np.zeros((1, 8, 8, 3))}, 'name "photo" among them'),
        (
            {"photos": np.zeros((1, 8, 9, 3))},
            r"photos of the image's shape \[8, 8, 3\].*number 0 has shape \[8, 9, 3\]",
        ),
        ({"photos": []}, "at least one photo"),
        ({"kinds": ("zero", "mean"), "count": 1}, "at least one game of each of the 2 kinds; got count = 1"),
        ({"count": 0}, "the number of games, at least 1; got 0"),
        ({"shift": 4}, "a shift of whole pixels, from 0 to less than 4; got 4"),
        ({"brightness": -1.0}, "brightness is in standard deviations"),
        ({"key": 0}, "expected a JAX random key first"),
        ({"payoff": "odds"}, "expected a payoff of"),
    ],
)
def test_errors(change, message, tiny):
    model, image = tiny
    given: dict = {"key": KEY, "model": model, "image": image, "target": 1, "regions": REGIONS} | change
    with pytest.raises(jm.InputError, match=message):
        jm.games.removals(**given)


def test_more_errors(tiny):
    model, image = tiny
    convolutional = Convolutional(model.logits)
    with pytest.raises(jm.InputError, match=r"no tokens; leave it out: kinds=\('zero',\)"):
        jm.games.removals(KEY, convolutional, image, 1, REGIONS, kinds=("tokens", "zero"))
    with pytest.raises(jm.InputError, match="expected regions int"):
        jm.games.removals(KEY, convolutional, image, 1, None)
    with pytest.raises(jm.InputError, match="other photos than the image itself.*number 1 is it"):
        jm.games.removals(KEY, model, image, 1, REGIONS, photos=[image * 0, image])


@pytest.mark.usefixtures("unchecked")
def test_photos_that_no_game_would_use_and_photos_of_another_kind_are_refused(tiny, photos):
    model, image = tiny
    with pytest.raises(ValueError, match='photos were given, and 3 games use none: "photo" is kind number 6. Ask for'):
        jm.games.removals(KEY, model, image, 1, REGIONS, count=3, photos=photos)
    with pytest.raises(ValueError, match="made as the image was, float32; number 0 is uint8: give model.preprocess"):
        jm.games.removals(KEY, model, image, 1, REGIONS, kinds=("photo",), photos=photos.astype(np.uint8))
    with pytest.raises(ValueError, match="a shift of whole pixels, from 0 to less than 4; got 1.5"):
        jm.games.removals(KEY, model, image, 1, REGIONS, shift=1.5)
    with pytest.raises(
        ValueError, match="needs a vision transformer, and this model has no tokens; name others of mean"
    ):
        jm.games.removals(KEY, lambda x: x.mean((1, 2)), image, 1, REGIONS, kinds=("tokens",))
