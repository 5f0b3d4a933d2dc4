"""The registry of what a study measures."""

import dataclasses

import pytest

from jaxmoxi.metrics import METRICS, Column, Metric, register, registry
from jaxmoxi.metrics.registry import all_columns


@pytest.fixture
def restored():
    """Takes back what a test registers."""
    before = dict(METRICS)
    yield
    registry._metrics.clear()
    registry._metrics.update(before)


def test_metrics_and_columns_stand_as_tables_show_them():
    """A new metric has its place among them, and changes nothing here."""
    known = {
        "insertion probability area": True,
        "insertion accuracy area": True,
        "deletion probability area": False,
        "deletion accuracy area": False,
        "smallest group that is enough": False,
        "smallest group to lose": False,
        "highest probability": True,
        "agreement with moxi": True,
        "pointing game": True,
        "energy inside": True,
        "IoU": True,
        "ROAD, most important first": False,
        "ROAD, least important first": True,
    }
    assert [(n, c.higher) for n, c in all_columns().items() if n in known] == list(known.items())
    assert [n for n in METRICS if n in ("road", "agreement", "curves")] == ["curves", "agreement", "road"]
    assert all(metric.help for metric in METRICS.values())


@pytest.mark.usefixtures("restored")
def test_names_are_taken_once():
    mine = register(Metric("mine", lambda explained: [], columns=(Column("one", higher=True),), help="nothing"))
    assert METRICS["mine"] is mine
    with pytest.raises(ValueError, match="expected a name that no other metric has; got 'mine', which is taken"):
        register(mine)
    with pytest.raises(ValueError, match="expected a column that no other metric has; got 'one'"):
        register(dataclasses.replace(mine, name="other"))
    with pytest.raises(ValueError, match="expected a removal that no other metric has; got 'road'"):
        register(Metric("other", lambda explained: [], columns=(), help="nothing", removals=(("road", "again"),)))
