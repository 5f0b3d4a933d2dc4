"""Pictures of predictions: what they show, not how they look."""

import subprocess
import sys

import numpy as np
import pytest

from jaxmoxi.p2p import plot
from jaxmoxi.p2p.inference.evaluation import Evaluation
from jaxmoxi.p2p.inference.fidelity import Fidelity
from jaxmoxi.p2p.inference.predict import Prediction
from support.sparse import PHOTOS, REGIONS, make_prediction, save, texts_cut_off


def levels(width=2):
    one = make_prediction(width)
    fields = {name: getattr(one, name) for name in one.__dataclass_fields__}
    return Prediction(**{n: x if n in ("areas", "embeddings") else x[None] for n, x in fields.items()})


def test_clusters_are_of_like_embedding_and_the_largest_comes_first():
    embeddings = np.array([[0.0], [5.0], [0.1], [5.2], [5.1], [50.0]], np.float32)
    areas = np.array([0.4, 0.1, 0.3, 0.1, 0.1, 0.0], np.float32)
    assert plot.clusters(embeddings, areas, num_clusters=2).tolist() == [0, 1, 0, 1, 1, -1]
    assert plot.clusters(embeddings, areas[::-1].copy(), num_clusters=3).tolist() == [-1, 0, 2, 0, 0, 1]
    assert plot.clusters(embeddings + 7, areas, num_clusters=2).tolist() == [0, 1, 0, 1, 1, -1]
    assert plot.clusters(embeddings, areas, num_clusters=1).max() == 0
    assert sorted(plot.clusters(embeddings, areas, num_clusters=50)[:5].tolist()) == [0, 1, 2, 3, 4]
    alone = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], np.float32)
    assert plot.clusters(embeddings, alone).tolist() == [-1, -1, 0, -1, -1, -1]
    with pytest.raises(ValueError, match=r"expected embeddings \[G, E\] of at least one dimension"):
        plot.clusters(np.zeros((6, 0), np.float32), areas)
    with pytest.raises(ValueError, match="num_clusters must be at least 1; got 0"):
        plot.clusters(embeddings, areas, num_clusters=0)


def test_the_four_panels():
    result = make_prediction()
    figure = plot.prediction(
        PHOTOS[0], REGIONS, result, class_names=("cat", "dog"), num_clusters=2, fill=0.5, caption="a model · slic:4"
    )
    photo, seen, heat, clusters = figure.axes
    np.testing.assert_array_equal(photo.images[0].get_array(), PHOTOS[0])
    assert photo.get_title() == "4 superpixels"
    shown = np.asarray(seen.images[0].get_array())
    mask = np.asarray(result.pixel_mask[0])
    np.testing.assert_array_equal(shown[mask], PHOTOS[0][mask])
    assert (shown[~mask] == 128).all()
    assert seen.get_title() == "seen: 50 % of the pixels"
    np.testing.assert_allclose(heat.images[1].get_array(), np.where(mask, 0.8, 0.2), atol=1e-6)
    painted = np.asarray(clusters.images[1].get_array())
    np.testing.assert_array_equal(painted[:8, :8], painted[8:, 8:])
    assert (painted[0, 0] != painted[0, 15]).any()
    assert clusters.get_title() == "2 clusters of the embeddings"
    assert [t.get_text() for t in clusters.get_legend().get_texts()] == ["0.20", "0.80"]
    assert figure.get_suptitle() == "dog, 90.0 %, at threshold 0.05"
    assert figure.get_supxlabel() == "a model · slic:4"
    assert not texts_cut_off(figure)
    assert save(figure).std() > 10


def test_another_image_and_no_names():
    figure = plot.prediction(PHOTOS[1], REGIONS, make_prediction(), index=1)
    assert figure.get_suptitle() == "class 0, 75.0 %, at threshold 0.30"
    assert figure.axes[1].get_title() == "seen: 25 % of the pixels"
    assert plot.prediction(PHOTOS[1], REGIONS, make_prediction(), index=1, title="mine").get_suptitle() == "mine"


def test_independent_groups_have_no_clusters():
    figure = plot.prediction(PHOTOS[0], REGIONS, make_prediction(width=0))
    assert len(figure.axes) == 3
    save(figure)


def test_pixels_of_no_group_are_never_seen():
    regions = REGIONS.copy()
    regions[0, 0] = 40
    figure = plot.prediction(PHOTOS[0], regions, make_prediction())
    heat = np.asarray(figure.axes[2].images[1].get_array())
    assert heat[0, 0] == 0
    assert np.asarray(figure.axes[3].images[1].get_alpha())[0, 0] == 0
    save(figure)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo": PHOTOS[0] / 2.0}, r"expected a photo of uint8, or of floats in \[0, 1\]; got float64"),
        ({"regions": REGIONS[:8]}, r"expected regions int\[16, 16\]; got int32 of shape \[8, 16\]"),
        ({"result": levels()}, r"a prediction at one certainty with pixel_mask \[B, 16, 16\]; got \[1, 3, 16, 16\]"),
        ({"index": 3}, r"expected an index of 0 .. 2; got 3"),
    ],
)
def test_what_does_not_fit(change, message):
    arguments = {"photo": PHOTOS[0], "regions": REGIONS, "result": make_prediction()} | change
    with pytest.raises(ValueError, match=message):
        plot.prediction(**arguments)


def test_training_curves():
    lines = [
        {"epoch": e, "loss": 2 / e, "target": 1 / e, "accuracy": 1 - 1 / e, "soft_share": 0.3, "hard_share": 0.2}
        for e in (1, 2, 3, 4)
    ]
    lines[1]["validation"] = {"accuracy": 0.4, "hard_share": 0.25, "threshold": 0.1}
    lines[3]["validation"] = {"accuracy": 0.7, "hard_share": 0.15, "threshold": 0.1}
    figure = plot.history(lines)
    curves = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    assert list(curves) == [
        "loss", "target", "accuracy", "accuracy validation", "soft share", "hard share", "hard share validation",
    ]  # fmt: skip
    np.testing.assert_allclose(curves["loss"].get_xydata(), [[1, 2], [2, 1], [3, 2 / 3], [4, 0.5]])
    np.testing.assert_allclose(curves["accuracy validation"].get_xydata(), [[2, 0.4], [4, 0.7]])
    assert curves["accuracy validation"].get_linestyle() == "--"
    save(figure)
    for wrong in ([], [{"loss": 1.0}]):
        with pytest.raises(ValueError, match="expected the history of `fit`"):
            plot.history(wrong)


def test_an_evaluation():
    numbers = {name: np.array([0.5, 0.6, 0.6]) for name in Evaluation.__dataclass_fields__}
    curves = Fidelity(
        np.array([0, 0.5, 1], np.float32),
        np.array([[1, 0.9, 0.9], [1, 0.8, 0.7], [1, 0.5, 0.2]], np.float32),
        np.array([[0.1, 0.5, 1], [0.1, 0.6, 1], [0.1, 0.7, 1]], np.float32),
    )
    numbers |= {"hard_share": np.array([0.1, 0.2, 0.2]), "certainty": np.array([0.8, 0.9, 0.99])}
    result = Evaluation(**numbers | {"num_images": 7, "fidelity": curves})
    figure = plot.evaluation(result, title="a model")
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [[10, 50], [20, 60], [20, 60]])
    assert [t.get_text() for t in left.texts] == ["0.8", "0.9, 0.99"]
    drawn = {line.get_label(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(drawn["deletion"], [100, 50, 20], rtol=1e-6)
    np.testing.assert_allclose(drawn["insertion"], [10, 70, 100], rtol=1e-6)
    assert right.get_title() == "fidelity at certainty 0.99"
    assert not texts_cut_off(figure)
    save(figure)


def test_nothing_is_imported_before_it_is_drawn():
    code = "import sys; from jaxmoxi.p2p import plot; assert not {'matplotlib', 'scipy.cluster'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
