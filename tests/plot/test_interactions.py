"""Pictures of interaction indices: what they show, and what they refuse."""

import functools
import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

import jaxmoxi as jm
from jaxmoxi import plot
from jaxmoxi.plot.sets import LESS, MORE, numbers

P = 6
PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
REGIONS = jm.grid_regions(20, 30, rows=2, cols=3)
TABLE = np.random.default_rng(1).normal(size=1 << P).astype(np.float32)


@functools.cache
def exact(index="k-SII", order=2):
    return jm.interactions.from_table(jnp.asarray(TABLE), index=index, order=order)


def interactions(scores, players=P, order=2, **fields):
    """Interactions of a few sets."""
    rows = np.full((len(scores), order), -1, np.int32)
    for row, members in zip(rows, scores, strict=True):
        row[: len(members)] = members
    return jm.interactions.Interactions(
        sets=jnp.asarray(rows), values=jnp.asarray(list(scores.values()), jnp.float32),
        num_players=players, order=order,
        **{"baseline": jnp.float32(0), "index": "k-SII", "num_evaluations": 1 << players} | fields,
    )  # fmt: skip


def written(figure):
    """All that is written in the picture."""
    return "\n".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


def named(figure, gid):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


NETWORK = {(0,): 2.0, (1,): -0.5, (5,): 0.5, (0, 1): -0.4, (0, 5): 0.3, (2, 3): 0.1, (3, 4): 0.0}


def test_the_network_draws_the_strongest_pairs_and_says_how_many_of_how_many():
    figure = plot.interaction_network(PHOTO, REGIONS, interactions(NETWORK), edges=2, unit="log-odds", title="t")
    words = written(figure)
    assert "the strongest 2 of 15 pairs, from 0.3 on" in words
    assert "k-SII of a pair, log-odds" in words
    assert {"synergy (1)", "redundancy (1)", "alone, up to +2", "alone, up to −0.5"} <= set(words.split("\n"))
    (edges,) = named(figure, "edges")
    assert isinstance(edges, LineCollection)
    weak, strong = edges.get_segments()
    middles = np.array([[x, y] for y in (4.5, 14.5) for x in (4.5, 14.5, 24.5)])
    assert {tuple(weak[0]), tuple(weak[-1])} == {tuple(middles[0]), tuple(middles[5])}
    assert {tuple(strong[0]), tuple(strong[-1])} == {tuple(middles[0]), tuple(middles[1])}
    assert edges.get_linewidths()[1] > edges.get_linewidths()[0]
    red, blue = edges.get_colors()[0][:3], edges.get_colors()[1][:3]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    numbered = {text.get_text() for text in figure.axes[0].texts}
    assert numbered == {"0", "1", "5"}


def test_the_networks_nodes_have_areas_by_first_order_and_colours_by_sign():
    figure = plot.interaction_network(PHOTO, REGIONS, interactions(NETWORK))
    (above,), (below,) = named(figure, "nodes above 0"), named(figure, "nodes below 0")
    assert isinstance(above, PathCollection)
    sizes = above.get_sizes()
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=1e-3)  # 2 and 0.5
    np.testing.assert_allclose(below.get_sizes(), sizes[1], rtol=1e-3)
    np.testing.assert_allclose(above.get_facecolors()[0][:3], to_rgb(MORE))
    np.testing.assert_allclose(below.get_facecolors()[0][:3], to_rgb(LESS))
    assert "the strongest 3 of 15 pairs" in written(figure)  # that of 0 is no edge


@pytest.mark.parametrize("side", [3, 7, 14])
def test_the_network_is_never_a_hairball(side):
    count = side * side
    rng = np.random.default_rng(side)
    pairs = itertools.combinations(range(count), 2)
    scores = {(i,): rng.normal() for i in range(count)} | {pair: rng.normal() for pair in pairs}
    regions = jm.grid_regions(56, 56, rows=side, cols=side)
    x = interactions(scores, count, num_evaluations=500)
    figure = plot.interaction_network(np.zeros((56, 56)), regions, x)
    drawn = min(30, 2 * count)
    assert f"the strongest {drawn} of {count * (count - 1) // 2:,} pairs" in written(figure)
    (edges,) = named(figure, "edges")
    points = np.concatenate(edges.get_segments())
    assert points.min() >= -0.5
    assert points.max() <= 55.5


def test_the_network_without_edges_or_single_players():
    assert "no pair interacts" in written(plot.interaction_network(PHOTO, REGIONS, interactions({(0,): 1.0})))
    pairs = interactions({(0, 1): 1.0}).replace(index="SGV")
    words = written(plot.interaction_network(PHOTO, REGIONS, pairs))
    assert "positive (1)" in words  # a generalised value of a pair is no synergy
    assert "synergy" not in words
    assert "all 15 pairs" in written(plot.interaction_network(PHOTO, REGIONS, exact("STII", 3), edges=99))
    assert "three players and more are not drawn" in written(plot.interaction_network(PHOTO, REGIONS, exact("STII", 3)))


def test_upset_has_a_bar_for_each_set_and_a_dot_for_each_member():
    x = interactions({(1,): 0.5, (0, 4): -2.0, (0, 1, 5): 1.0, (2,): 0.1}, order=3)
    x = x.replace(standard_errors=jnp.asarray([0.1, 0.2, 0.3, 0.4]), faithfulness=jnp.float32(0.9312))
    figure = plot.upset(x, k=3, unit="logit")
    words = written(figure)
    assert "the strongest 3 of 41 sets" in words
    assert "± 1 standard error" in words
    assert "k-SII of order 3, 6 players" in words
    assert "estimated from 64 coalitions, R² = 0.931 on others" in words
    bars = named(figure, "set")
    np.testing.assert_allclose([bar.get_height() for bar in bars], [-2.0, 1.0, 0.5])
    assert [to_rgb(bar.get_facecolor()) == to_rgb(MORE) for bar in bars] == [False, True, True]
    matrix = figure.axes[1]
    labels = [int(label.get_text()) for label in matrix.get_yticklabels()]
    assert labels == [0, 1, 4, 5]
    members = [[labels[int(row)] for row in line.get_ydata()] for line in named(figure, "members")]
    assert members == [[0, 4], [0, 1, 5], [1]]
    whiskers = next(c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    np.testing.assert_allclose([np.ptp(s[:, 1]) / 2 for s in whiskers.get_segments()], [0.2, 0.3, 0.1], atol=1e-6)
    assert "standard error" not in written(plot.upset(exact()))
    assert "exact, from all 64 coalitions" in written(plot.upset(exact()))


def test_upset_of_one_size_and_with_a_map():
    figure = plot.upset(exact("STII", 3), k=4, size=3, photo=PHOTO, regions=REGIONS)
    assert "the strongest 4 of 20 sets of 3" in written(figure)
    assert all(len(line.get_ydata()) == 3 for line in named(figure, "members"))
    shown = {int(label.get_text()) for label in figure.axes[1].get_yticklabels()}
    assert {int(text.get_text()) for text in figure.axes[2].texts} == shown
    assert "all 6 sets" in written(plot.upset(exact("SV", 1)))


def test_the_matrix_has_pairs_and_single_players_on_scales_centred_at_0():
    x = exact("STII", 3)
    figure = plot.heat_map(x, unit="margin")
    words = written(figure)
    (pairs,), (alone,) = named(figure, "pairs"), named(figure, "diagonal")
    off = ~np.eye(P, dtype=bool)
    np.testing.assert_allclose(pairs.get_array()[off], np.asarray(x.matrix())[off], rtol=1e-6)
    np.testing.assert_allclose(np.diag(alone.get_array()), x.first_order(), rtol=1e-6)
    for image, values in ((pairs, np.asarray(x.matrix())[off]), (alone, np.asarray(x.first_order()))):
        assert image.norm.vmax == -image.norm.vmin == pytest.approx(np.abs(values).max(), rel=1e-6)
    assert (pairs.get_alpha()[off] == 1).all()
    assert (np.diag(pairs.get_alpha()) == 0).all()
    assert "STII of a pair, margin" in words
    assert "STII of one player (diagonal), margin" in words
    assert "three players and more are not drawn" in words
    assert plot.heat_map(x, limit=5.0, diagonal_limit=7.0).axes[0].images[1].norm.vmax == 5


def test_the_matrix_tells_what_has_no_value():
    x = interactions({(0,): 1.0, (0, 1): 0.5, (2, 3): -0.5})
    figure = plot.heat_map(x)
    assert "13 pairs without a value are grey" in written(figure)
    (pairs,) = named(figure, "pairs")
    assert int((~pairs.get_array().mask).sum()) == 4


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_the_waterfall_of_an_efficient_index_ends_at_all_players(index):
    figure = plot.waterfall(exact(index), k=4, unit="logit")
    words = written(figure)
    assert "v of all 6 players" in words
    assert "the other 17 sets" in words
    bars = figure.axes[0].patches
    assert len(bars) == 5
    assert bars[0].get_x() == pytest.approx(TABLE[0], abs=1e-5)
    for bar, after in itertools.pairwise(bars):
        assert after.get_x() == pytest.approx(bar.get_x() + bar.get_width(), abs=1e-5)
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(TABLE[-1], abs=1e-4)
    assert not named(plot.waterfall(exact(index), total=float(TABLE[-1])), "remainder")


def test_the_waterfall_of_others_says_what_is_left_over():
    words = written(plot.waterfall(exact("BII")))
    assert "sum of the values" in words
    assert "BII of order 2 does not sum to v of all players" in words
    assert "v of all 6" not in words
    figure = plot.waterfall(exact("BII"), total=float(TABLE[-1]))
    (left,) = named(figure, "remainder")
    assert left.get_x() + left.get_width() == pytest.approx(TABLE[-1], abs=1e-5)
    assert "left over: BII of order 2 does not sum to v of all players" in written(figure)
    some = exact().top(5)
    assert "5 of 21 sets have a value, so this is not v of all players" in written(plot.waterfall(some))
    assert "left over: the 16 sets without a value" in written(plot.waterfall(some, total=9.0))
    guess = exact().replace(standard_errors=jnp.full(21, 0.05))
    assert "v of all 6 players, estimated" in written(plot.waterfall(guess))
    assert "left over: the error of the estimate" in written(plot.waterfall(guess, total=float(TABLE[-1]) + 0.5))
    assert "± 0.05" in written(plot.waterfall(guess))
    assert "intercept of the fit" in written(plot.waterfall(exact("FBII")))


def test_numbers_have_the_same_decimals():
    assert numbers([1.234, -0.0456]) == ["+1.23", "−0.05"]
    assert numbers([0.01234, 12.0], like=[0.01234]) == ["+0.0123", "+12.0000"]
    assert numbers([1.5e-9]) == ["+1.5e−9"]
    assert numbers([0.0]) == ["+0"]


def test_names_are_drawn_letter_by_letter():
    name = r"cost $5 and $\frac{$"
    x = exact()
    for figure in (
        plot.interaction_network(PHOTO, REGIONS, x, unit=name, title=name, caption=name),
        plot.upset(x, unit=name, title=name, caption=name),
        plot.heat_map(x, unit=name, title=name, caption=name),
        plot.waterfall(x, unit=name, title=name, caption=name),
    ):
        figure.savefig(io.BytesIO(), format="png")  # is part of what must work
        assert "\\$5" in written(figure)


DRAWN = {
    "interaction_network": lambda x, **how: plot.interaction_network(PHOTO, REGIONS, x, **how),
    "upset": plot.upset,
    "heat_map": plot.heat_map,
    "waterfall": plot.waterfall,
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_no_result_of_one_image_is_refused(name):
    draw = DRAWN[name]
    batch = jax.vmap(lambda t: jm.interactions.from_table(t))(jnp.asarray(TABLE).reshape(2, -1))
    with pytest.raises(jm.InputError, match=r"the interactions of one image, values \[M\]; got values \[2, 15\]"):
        draw(batch)
    with pytest.raises(jm.InputError, match="finite interactions; 1 of 3 are not"):
        draw(interactions({(0,): 1.0, (1,): np.nan, (0, 1): 1.0}))
    with pytest.raises(jm.InputError, match=r"players 0 \.\. 5; one has the player 6"):
        draw(interactions({(0, 6): 1.0}))
    with pytest.raises(jm.InputError, match="at least one set"):
        draw(exact().select(np.arange(0)))


@pytest.mark.parametrize(("draw", "message"), [
    (lambda: plot.heat_map(exact("SV", 1)), "shows pairs: it needs order 2 or more; SV has order 1"),
    (lambda: plot.interaction_network(PHOTO, REGIONS, exact("SV", 1)), "it needs order 2 or more"),
    (lambda: plot.interaction_network(PHOTO, REGIONS[:, :9], exact()), "the size of the photo"),
    (lambda: plot.interaction_network(PHOTO, REGIONS * 0, exact()), "of 6 players, the regions are 1"),
    (lambda: plot.upset(exact(), photo=PHOTO, regions=REGIONS * 0), "of 6 players, the regions are 1"),
    (lambda: plot.upset(exact(), photo=PHOTO), "a map needs both, photo= and regions="),
    (lambda: plot.upset(exact(), k=0), "k is how many sets to draw, a whole number of at least 1; got 0"),
    (lambda: plot.upset(exact(), size=3), "a size from 1 to 2"),
    (lambda: plot.upset(interactions({(0,): 1.0}), size=2), "there is no set of 2 players among the 1"),
    (lambda: plot.waterfall(exact(), k=-1), "k is how many sets to draw"),
    (lambda: plot.waterfall(exact(), total=float("nan")), "total is v of all players, a finite number"),
    (lambda: plot.interaction_network(PHOTO, REGIONS, exact(), edges=0), "edges is how many pairs to draw"),
    (lambda: plot.interaction_network(PHOTO, REGIONS, exact(), limit=0.0), "limit is the absolute value"),
    (lambda: plot.heat_map(exact(), limit=-1.0), "limit is the absolute value"),
    (lambda: plot.heat_map(exact(), diagonal_limit=0.0), "diagonal_limit is the absolute value"),
])  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(draw, message):
    with pytest.raises(jm.InputError, match=message):
        draw()
