"""Pictures: what they show, not how they look."""

import io
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from PIL import Image

from jaxmoxi import plot
from jaxmoxi.regions.label_maps import grid_regions
from jaxmoxi.types import Curve, GreedyResult

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
REGIONS = grid_regions(20, 30, rows=2, cols=3)  # players 0 1 2 above 3 4 5, each 10 x 10 pixels


def make_result(order, leads, *, start_leads=False, insertion=True, probabilities=True, players=6):
    steps = len(order)
    rest = players - steps
    chances = jnp.linspace(0.2, 0.7, steps) if insertion else jnp.linspace(0.7, 0.2, steps)
    return GreedyResult(
        order=jnp.asarray(list(order) + [-1] * rest, jnp.int32),
        values=jnp.pad(jnp.arange(steps, dtype=jnp.float32), (0, rest), constant_values=jnp.nan),
        num_steps=jnp.int32(steps),
        start_value=jnp.float32(-1.0),
        num_evaluations=jnp.int32(21),
        leads=None if leads is None else jnp.asarray(list(leads) + [False] * rest),
        probabilities=jnp.pad(chances, (0, rest), constant_values=jnp.nan) if probabilities else None,
        start_leads=None if leads is None else jnp.asarray(start_leads),
        start_probability=jnp.float32(0.1 if insertion else 0.9) if probabilities else None,
        nan_player=jnp.int32(-1),
        insertion=insertion,
    )


def pixels(figure):
    """The saved picture, uint8[h, w, 3]; saving is part of what must work."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def lines(axes):
    return [c for c in axes.collections if isinstance(c, LineCollection)]


def test_heat_falls_from_one_in_equal_steps_to_the_flip():
    result = make_result([4, 1, 0, 5], [False, False, True, True])
    np.testing.assert_allclose(plot.heat(result, 6), [1 / 3, 2 / 3, 0, 0, 1, 0], rtol=1e-6)


def texts(figure):
    """Everything written in a figure, as it is drawn."""
    from matplotlib.text import Text

    return [text._preprocess_math(text.get_text()) for text in figure.findobj(Text) if text.get_text()]


NAMES = ["cost $5 and $6", r"$\frac{$", "_hidden", "a\nb", "x" * 240, "\udce9", "50 % #1 & <b>"]


@pytest.mark.parametrize("name", NAMES)
def test_names_titles_and_captions_are_drawn_letter_by_letter(name):
    result = make_result([4, 1, 0], [False, False, True])
    curve = Curve(jnp.linspace(0, 1, 7), jnp.float32(0.5), None, None, None)
    for figure in (
        plot.explanation(PHOTO, REGIONS, result, target=name, title=name, caption=name),
        plot.group(PHOTO, REGIONS, [4, 1], title=name),
        plot.groups(PHOTO, REGIONS, np.eye(6, dtype=bool)[:2], titles=[name, name], caption=name),
        plot.curves({name: curve}, title=name),
    ):
        pixels(figure)
        mathematics = [text for text, kind in texts(figure) if kind]
        assert all("(n-k)" in text for text in mathematics)
        shown = " ".join(text for text, _ in texts(figure))
        assert name[:5].split("\n")[0].replace("\udce9", r"\xe9") in shown


def test_groups_are_drawn_beside_their_players():
    figure = plot.groups(PHOTO, REGIONS, np.array([[1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]], bool))
    assert [axes.get_title() for axes in figure.axes] == ["6 regions", "2 regions", "1 region"]
    shown = figure.axes[1].images[0].get_array()
    inside = np.isin(np.asarray(REGIONS), [0, 4])
    np.testing.assert_array_equal(shown[inside], PHOTO[inside])
    assert (shown[~inside] != PHOTO[~inside]).any()
    assert len(plot.groups(PHOTO, REGIONS, np.ones(6, bool)).axes) == 2
    for wrong, message in [(np.ones(5, bool), r"bool\[6\]"), (np.ones((0, 6), bool), "at least one"), ([4, 1], "bool")]:
        with pytest.raises(ValueError, match=message):
            plot.groups(PHOTO, REGIONS, wrong)
    with pytest.raises(ValueError, match="a title for each of the 1 groups; got 2"):
        plot.groups(PHOTO, REGIONS, np.ones(6, bool), titles=["a", "b"])


def test_heat_of_everything_chosen_and_of_the_first_few():
    result = make_result([4, 1, 0, 5], [False, False, True, True])
    np.testing.assert_allclose(plot.heat(result, 6, upto="all"), [0.5, 0.75, 0, 0, 1, 0.25])
    np.testing.assert_allclose(plot.heat(result, 6, upto=2), [0, 0.5, 0, 0, 1, 0])


def test_heat_of_an_order_alone_ignores_the_places_left_empty():
    np.testing.assert_allclose(plot.heat(np.array([2, 0, -1, -1, -1, -1]), 6), [0.5, 0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("insertion", "start", "leads", "size"),
    [
        (True, False, [False, True, False], 2),  # the first flip counts, not the last
        (False, True, [True, True, False], 3),
        (True, True, [True, True, True], 0),
        (False, False, [False, False, False], 0),
        (True, False, [False, False, False], None),
        (False, True, [True, True, True], None),
    ],
)
def test_flip_size(insertion, start, leads, size):
    result = make_result([0, 1, 2], leads, start_leads=start, insertion=insertion)
    assert plot.flip_size(result) == size
    assert np.count_nonzero(plot.heat(result, 6)) == (3 if size is None else size)


def test_flip_size_is_unknown_without_leads_and_then_all_are_meant():
    result = make_result([3, 1], None)
    assert plot.flip_size(result) is None
    np.testing.assert_allclose(plot.heat(result, 6), [0, 0.5, 0, 1, 0, 0])


def test_heatmap_colours_the_chosen_regions_alone_and_the_first_most():
    figure = plot.heatmap(PHOTO, REGIONS, make_result([4, 1], [False, True]), title="a title")
    heat_image = figure.axes[0].images[1]
    opacity, heats = np.asarray(heat_image.get_alpha()), np.asarray(heat_image.get_array())
    assert (opacity[np.isin(REGIONS, [0, 2, 3, 5])] == 0).all()
    assert (opacity[np.isin(REGIONS, [1, 4])] > 0).all()
    assert (opacity < 1).all()  # the photo shows through
    assert (heats[REGIONS == 4] == 1).all()
    assert (heats[REGIONS == 1] == 0.5).all()
    background = np.asarray(figure.axes[0].images[0].get_array())
    assert (background == background[..., :1]).all()  # every colour seen is heat
    assert pixels(figure).std() > 0
    assert figure.get_suptitle() == "a title"


def test_group_keeps_the_photo_inside_and_fades_it_outside():
    figure = plot.group(PHOTO, REGIONS, np.array([4, 5]))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    inside = np.isin(REGIONS, [4, 5])
    np.testing.assert_array_equal(shown[inside], PHOTO[inside])
    outside = shown[~inside].astype(int)
    assert (outside == outside[:, :1]).all()
    assert np.ptp(outside) < np.ptp(PHOTO[~inside].mean(axis=-1)) / 2
    pixels(figure)


def test_group_outline_runs_around_the_group_and_not_through_it():
    figure = plot.group(PHOTO, REGIONS, np.array([4, 5]))
    (outline,) = lines(figure.axes[0])
    segments = {tuple(sorted(map(tuple, s.tolist()))) for s in outline.get_segments()}
    # Players 4 and 5 are the columns 10 .. 29 of the rows 10 .. 19; pixel centres lie on whole numbers.
    left, right, top, bottom = 9.5, 29.5, 9.5, 19.5
    assert segments == {
        ((left, top), (right, top)),
        ((left, bottom), (right, bottom)),
        ((left, top), (left, bottom)),
        ((right, top), (right, bottom)),
    }


@pytest.mark.parametrize("insertion", [True, False])
def test_explanation_has_the_four_panels_and_marks_the_flip(insertion):
    leads = [not insertion, insertion, insertion]  # the flip is at two
    result = make_result([4, 1, 0], leads, start_leads=not insertion, insertion=insertion)
    figure = plot.explanation(
        PHOTO, REGIONS, result, target="cat", title="the answer", caption="by somebody", whole=0.8
    )
    photo, heat, group, curve = figure.axes[:4]
    np.testing.assert_array_equal(np.asarray(photo.images[0].get_array()), PHOTO)
    assert len(lines(photo)[0].get_segments()) == 3  # two rows, three columns: three straight borders
    assert np.count_nonzero(np.asarray(heat.images[1].get_alpha())) == 200  # the flip is at two, of 10 x 10 pixels
    assert group.get_title() == ("the 2 regions alone" if insertion else "the 2 regions that were deleted")
    steps, level, flip, dot = curve.get_lines()
    start = [0.1, 0.2] if insertion else [0.9, 0.7]
    np.testing.assert_allclose(steps.get_ydata()[:2], start, rtol=1e-6)
    assert list(steps.get_xdata()) == [0, 1, 2, 3]
    assert set(level.get_ydata()) == {0.8}
    assert set(flip.get_xdata()) == {plot.flip_size(result)}
    assert dot.get_xdata()[0] == plot.flip_size(result)
    assert "'cat'" in curve.get_ylabel()
    assert figure.get_supxlabel() == "by somebody"
    pixels(figure)


def test_explanation_may_show_the_heat_of_the_whole_order():
    result = make_result([4, 1, 0], [True, True, True])
    figure = plot.explanation(PHOTO, REGIONS, result, heat_upto="all")
    heats, group = figure.axes[1:3]
    assert np.count_nonzero(np.asarray(heats.images[1].get_alpha())) == 300
    assert heats.get_title() == "3 regions inserted, in order"
    assert group.get_title() == "the 1 region alone"


def test_explanation_shows_the_payoff_where_the_probability_is_unknown():
    figure = plot.explanation(PHOTO, REGIONS, make_result([4, 1], None, probabilities=False), whole=0.8)
    (steps,) = figure.axes[3].get_lines()  # neither a flip nor the level of a probability
    np.testing.assert_allclose(steps.get_ydata(), [-1, 0, 1])
    assert "payoff" in figure.axes[3].get_ylabel()
    pixels(figure)


def test_explanation_of_a_search_that_chose_nobody():
    figure = plot.explanation(PHOTO, REGIONS, make_result([], [], start_leads=True))
    assert (np.asarray(figure.axes[1].images[1].get_alpha()) == 0).all()
    assert "from the start" in figure.axes[3].get_title()
    pixels(figure)


def matrix_of(**pairs):
    matrix = np.full((6, 6), 0.0)
    for pair, value in pairs.items():
        i, j = int(pair[1]), int(pair[2])
        matrix[i, j] = matrix[j, i] = value
    return matrix


def drawn(figure):
    (collection,) = [c for c in lines(figure.axes[0]) if c.get_gid() == "interactions"]
    return collection


def test_interactions_draws_the_strongest_pairs_with_the_sign_as_colour():
    matrix = matrix_of(_05=3.0, _12=-2.0, _34=0.5, _01=0.25)
    np.fill_diagonal(matrix, 99.0)  # ignored
    figure = plot.interactions(PHOTO, REGIONS, matrix, top=2)
    collection = drawn(figure)
    weaker, stronger = collection.get_segments()  # the strongest is drawn last, on top
    np.testing.assert_allclose(stronger[[0, -1]], [[4.5, 4.5], [24.5, 14.5]])  # centroids of 0 and 5
    np.testing.assert_allclose(weaker[[0, -1]], [[14.5, 4.5], [24.5, 4.5]])
    blue, red = collection.get_colors()
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert collection.get_linewidths()[1] > collection.get_linewidths()[0]
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ["synergy (1)", "redundancy (1)"]
    assert figure.legends[0].get_title().get_text() == "the strongest 2 of 15 pairs"
    pixels(figure)


def test_interactions_draws_no_pair_that_does_not_interact():
    assert len(drawn(plot.interactions(PHOTO, REGIONS, matrix_of(_05=3.0, _12=-2.0), top=30)).get_segments()) == 2
    figure = plot.interactions(PHOTO, REGIONS, matrix_of())
    assert [c.get_gid() for c in figure.axes[0].collections] == [None]  # the regions' borders
    assert figure.legends[0].get_title().get_text() == "no pair interacts"
    pixels(figure)


def test_interactions_limit_fixes_the_scale():
    weak = plot.interactions(PHOTO, REGIONS, matrix_of(_05=1.0), limit=10.0)
    full = plot.interactions(PHOTO, REGIONS, matrix_of(_05=1.0))
    assert drawn(weak).get_linewidths()[0] < drawn(full).get_linewidths()[0]
    np.testing.assert_allclose(drawn(full).get_colors()[0][:3], to_rgb("#d0021b"), atol=1e-6)


def make_curve(values, *, probabilities=True):
    values = jnp.asarray(values, jnp.float32)
    area = jnp.float32(np.trapezoid(values, dx=1 / (len(values) - 1)))
    return Curve(values, area, None, None, values / 10 if probabilities else None)


def test_curves_draws_each_over_the_share_of_regions_with_its_area():
    figure = plot.curves({"MoXI": make_curve([0.0, 4.0, 6.0]), "random": make_curve([0.0, 1.0, 2.0, 3.0, 6.0])})
    first, second = figure.axes[0].get_lines()
    np.testing.assert_allclose(first.get_xdata(), [0, 0.5, 1])
    np.testing.assert_allclose(first.get_ydata(), [0, 4, 6])
    np.testing.assert_allclose(second.get_xdata(), [0, 0.25, 0.5, 0.75, 1])
    texts = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert texts == ["MoXI (area 3.500)", "random (area 2.250)"]
    pixels(figure)


def test_curves_of_probabilities_have_the_areas_of_probabilities():
    figure = plot.curves({"MoXI": make_curve([0.0, 4.0, 6.0])}, quantity="probability")
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [0, 0.4, 0.6], rtol=1e-6)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "MoXI (area 0.350)"


ORDER = np.array([4, 1])
MATRIX = matrix_of(_05=1.0)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.heatmap(PHOTO / 2.0, REGIONS, ORDER), r"expected a photo of uint8, or of floats .*got float64"),
        (lambda: plot.heatmap(PHOTO[..., :2], REGIONS, ORDER), r"2 channels can be drawn in many ways"),
        (
            lambda: plot.group(PHOTO, REGIONS[:10], ORDER),
            r"integers \(20, 30\), the size of the photo; got .* \(10, 30\)",
        ),
        (lambda: plot.group(PHOTO, np.ones((20, 30)), ORDER), "got float64"),
        (lambda: plot.group(PHOTO, REGIONS + 1, ORDER), "0 .. P-1 without a gap"),
        (lambda: plot.heatmap(PHOTO, REGIONS, np.array([4, 6])), r"players 0 .. 5; got \[6\], which are none"),
        (lambda: plot.heatmap(PHOTO, REGIONS, np.array([4, -1, 3])), r"got \[-1\]"),
        (lambda: plot.heatmap(PHOTO, REGIONS, np.array([4, 4])), "a player twice"),
        (lambda: plot.heatmap(PHOTO, REGIONS, np.array([[4, 1]])), r"order of one image, int\[P\]; got .* \(1, 2\)"),
        (lambda: plot.heatmap(PHOTO, REGIONS, np.array([0.5])), "got float64"),
        (
            lambda: plot.heatmap(PHOTO, REGIONS, make_result([0], [True], players=4)),
            "orders 4 players, the regions are 6",
        ),
        (lambda: plot.heatmap(PHOTO, REGIONS, ORDER, upto=3), "'flip', 'all' or 1 .. 2, the players chosen; got 3"),
        (lambda: plot.heatmap(PHOTO, REGIONS, ORDER, upto=0), "got 0"),
        (lambda: plot.heatmap(PHOTO, REGIONS, ORDER, upto="first"), "got 'first'"),
        (lambda: plot.explanation(PHOTO, REGIONS, ORDER), "expected a GreedyResult; got ndarray"),
        (lambda: plot.interactions(PHOTO, REGIONS, MATRIX[:5]), r"6 x 6 players; got shape \(5, 6\)"),
        (lambda: plot.interactions(PHOTO, REGIONS, np.triu(MATRIX)), "symmetric"),
        (lambda: plot.interactions(PHOTO, REGIONS, MATRIX * np.nan), "finite"),
        (lambda: plot.interactions(PHOTO, REGIONS, MATRIX, top=0), "top is how many pairs to draw, at least 1; got 0"),
        (lambda: plot.interactions(PHOTO, REGIONS, MATRIX, limit=0.0), "above 0; got 0.0"),
        (lambda: plot.curves({}), "at least one curve"),
        (lambda: plot.curves({"a": make_curve([0.0, 1.0])}, quantity="area"), "'payoff' or 'probability'; got 'area'"),
        (
            lambda: plot.curves({"a": make_curve([0.0, 1.0], probabilities=False)}, quantity="probability"),
            "the curve 'a' has no probabilities",
        ),
    ],
)
def test_wrong_inputs_are_named(draw, message, unchecked):
    with pytest.raises(ValueError, match=message):
        draw()


def test_matplotlib_is_imported_by_drawing_and_pyplot_never():
    code = """
import sys
import numpy as np
from jaxmoxi import plot
print("matplotlib" in sys.modules)
plot.heatmap(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int), np.array([0]))
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.split() == ["False", "True", "False"], out.stderr
