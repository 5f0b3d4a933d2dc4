"""The settings of a study."""

import dataclasses

import numpy as np
import pytest

from jaxmoxi.attribution import METHODS, Effort
from jaxmoxi.metrics import METRICS
from jaxmoxi.study import PRESETS, StudyConfig
from support.study import tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("lime",)}, "expected methods among grad-cam"),
        ({"methods": ("random", "random")}, "methods names random twice"),
        ({"metrics": ()}, "expected at least one of curves"),
        ({"regions": "hex:9"}, "expected regions of grid:ROWSxCOLUMNS"),
        ({"samples": 1}, "samples must be at least 2; got 1"),
        ({"methods": ("random",)}, 'the metric "agreement" needs the method "moxi"'),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_fewer_sizes_are_dense_at_both_ends():
    sizes = dataclasses.replace(tiny_config(), sizes=25).curve_sizes(196)
    assert sizes[:2] == [0, 1]
    assert sizes[-2:] == [195, 196]
    assert np.diff(sizes).max() == np.diff(sizes)[len(sizes) // 2]
    assert tiny_config().curve_sizes(5) == [0, 1, 2, 3, 4, 5]


def test_what_is_asked_for_by_default():
    assert StudyConfig().methods == tuple(name for name, method in METHODS.items() if method.by_default)
    assert StudyConfig().metrics == tuple(name for name, metric in METRICS.items() if metric.by_default)
    assert "curves" in StudyConfig().metrics
    assert "road" not in StudyConfig().metrics
    by_default = {name for name, metric in METRICS.items() if metric.by_default}
    assert set(PRESETS["paper"]().metrics) == by_default | {"road"}
    assert set(PRESETS["quick"]().metrics) == by_default


def test_how_much_work_a_method_may_do():
    assert tiny_config(samples=9, steps=3).effort(16, batch_size=5) == Effort(16, 9, 3, 5)
