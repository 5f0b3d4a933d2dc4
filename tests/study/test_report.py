"""The report and its figures follow from the records, the methods' entries and the metrics' alone."""

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxmoxi import attribution, metrics
from jaxmoxi.attribution import METHODS
from jaxmoxi.metrics import Column, Line, Number, Panels
from jaxmoxi.study import run_study
from jaxmoxi.study.figures import method_style
from jaxmoxi.study.report import _mean
from support.study import tiny_config


def test_numbers_that_are_not_defined_are_left_out_of_means():
    """A pointing game without an object in the crop is NaN; the other photos still count."""
    assert _mean([1.0, np.nan, 3.0]) == pytest.approx((2.0, 1.96))
    assert _mean([np.nan]) is None


@pytest.fixture
def registries():
    """Takes back what a test registers."""
    kept = [(found, dict(found)) for found in (attribution.methods._methods, metrics.registry._metrics)]
    yield
    for found, before in kept:
        found.clear()
        found.update(before)


@pytest.mark.usefixtures("registries")
def test_a_new_method_and_a_new_metric_need_an_entry_each_and_no_more(models, photos, tmp_path):
    """The table, the report's columns and titles, and the figures follow."""

    def middle_first(key, problem):
        del key
        return -jnp.abs(jnp.arange(problem.num_players) - problem.num_players / 2)

    def first_players(explained):
        for method, order in zip(explained.methods, explained.orders[:, 0], strict=True):
            yield Number("first player", method, "guessed", float(order[0]))
            shares = np.linspace(0, 1, 3)
            yield Line("first", method, "guessed", "forward", "rank", shares, shares.astype(np.float32))

    attribution.register(
        attribution.Method("middle", middle_first, "nobody, 2000", help="the middle first", colour="#e377c2")
    )
    metrics.register(
        metrics.Metric(
            "first",
            first_players,
            columns=(Column("first player", higher=False, digits=2),),
            help="the first player's index",
            removals=(("guessed", "players guessed"),),
            panels=Panels((("rank", "rank"),), (("forward", "forward", "players, %"),)),
            note=lambda sizes: f"Noted for {len(sizes)} sizes.",
        )
    )
    config = tiny_config(methods=("random", "middle"), metrics=("curves", "first"), num_photos=2, sizes=4)
    report = run_study(photos, models, tmp_path / "out", config, progress=False).read_text()
    assert "### Players guessed\n\n| method | first player ↓ |\n| --- | ---: |" in report
    assert "| middle | " in report.split("### Players guessed")[1]
    assert "± 0.00" in report.split("### Players guessed")[1]
    assert "Noted for 4 sizes." in report
    assert "- middle: nobody, 2000" in report
    assert "figures/tiny-first-guessed.png" in report
    assert matplotlib.image.imread(tmp_path / "out" / "figures" / "tiny-first-guessed.png").std() > 0
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert {r["value"] for r in rows if (r["method"], r["metric"]) == ("middle", "first player")} == {4.0}
    assert {r["removal"] for r in rows if r["metric"] == "first player"} == {"guessed"}


def test_metrics_stand_in_their_order_whatever_order_they_are_asked_in(whole):
    report = (whole / "report.md").read_text()
    assert report.index("insertion probability area") < report.index("agreement with moxi")


def test_a_method_is_drawn_as_its_entry_says():
    assert method_style("moxi") == {"color": "#d0021b", "linestyle": "-", "linewidth": 2.2}
    assert method_style("moxi-single")["linestyle"] == ":"
    assert method_style("random") == {"color": METHODS["random"].colour, "linestyle": "--", "linewidth": 1.1}
