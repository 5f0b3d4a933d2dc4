"""The answer in words, the record as JSON, files that are complete or not there."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.cli import report as _report
from jaxmoxi.types import GreedyResult, Stop


def make_result(chances, leads, *, insertion=True, players=9):
    """A search whose readouts, the start's first, are these."""
    steps = len(leads) - 1
    rest = players - steps
    return GreedyResult(
        order=jnp.asarray([*range(steps)] + [-1] * rest, jnp.int32),
        values=jnp.zeros(players, jnp.float32),
        num_steps=jnp.int32(steps),
        start_value=jnp.float32(0),
        num_evaluations=jnp.int32(1),
        leads=jnp.asarray(leads[1:] + [False] * rest, bool),
        probabilities=jnp.asarray(chances[1:] + [np.nan] * rest, jnp.float32),
        start_leads=jnp.asarray(leads[0]),
        start_probability=jnp.float32(chances[0]),
        nan_player=jnp.int32(-1),
        insertion=insertion,
    )


FLIP, LEVEL = Stop(flip=True), Stop(probability=0.5)
N, Y = False, True


@pytest.mark.parametrize(
    ("insertion", "stop", "chances", "leads", "answer"),
    [
        (True, FLIP, [0.1, 0.2, 0.71], [N, N, Y], "these 2 of 9 regions are enough for 'cat', 71 %"),
        (True, FLIP, [0.1, 0.6], [N, Y], "this 1 of 9 regions is enough for 'cat', 60 %"),
        (True, FLIP, [0.4], [Y], "no region is needed: 'cat' is the top class with every region hidden, 40 %"),
        (
            True,
            FLIP,
            [0.1] * 10,
            [N] * 10,
            "'cat' does not become the top class in this order, nor with all 9 regions (10 %)",
        ),
        (True, Stop(), [0.1, 0.6, 0.9], [N, Y, Y], "this 1 of 9 regions is enough for 'cat', 60 %"),
        (True, Stop(size=2), [0.1, 0.2, 0.3], [N, N, N], "with these 2 of 9 regions 'cat' is not the top class, 30 %"),
        (True, Stop(size=2), [0.1, 0.2, 0.3], [N, N, Y], "with these 2 of 9 regions 'cat' is the top class, 30 %"),
        (True, LEVEL, [0.1, 0.2, 0.55], [N, N, N], "these 2 of 9 regions are enough for 'cat', 55 %"),
        (True, LEVEL, [0.55], [Y], "no region is needed: 'cat' is at 55 % with every region hidden"),
        (
            True,
            LEVEL,
            [0.1, 0.2, 0.4] + [0.3] * 7,
            [N] * 10,
            "'cat' does not reach 50 % in this order: at most 40 %, with 2 of 9 regions",
        ),
        (False, FLIP, [0.9, 0.6, 0.12], [Y, Y, N], "without these 2 of 9 regions it is no longer 'cat' (12 %)"),
        (
            False,
            FLIP,
            [0.2],
            [N],
            "'cat' is not the top class of the whole photo (20 %): there is nothing to take away from it",
        ),
        (
            False,
            FLIP,
            [0.6] * 10,
            [Y] * 10,
            "'cat' stays the top class in this order, even without all 9 regions (60 %)",
        ),
        (False, Stop(size=1), [0.9, 0.6], [Y, Y], "without this 1 of 9 regions 'cat' is the top class, 60 %"),
        (False, LEVEL, [0.9, 0.45], [Y, Y], "without this 1 of 9 regions 'cat' falls to 45 %"),
        (False, LEVEL, [0.3], [Y], "no region is needed: 'cat' is at 30 % in the whole photo"),
        (
            False,
            LEVEL,
            [0.9] * 9 + [0.8],
            [Y] * 10,
            "'cat' does not fall to 50 % in this order: at least 80 %, without 9 of 9 regions",
        ),
    ],
)
def test_the_answer_says_what_happened(insertion, stop, chances, leads, answer):
    assert _report.describe(make_result(chances, leads, insertion=insertion), stop, "cat") == answer


def test_the_group_is_what_the_answer_is_about():
    result = make_result([0.1, 0.2, 0.6, 0.7], [N, N, Y, Y])
    assert _report.group(result, Stop()).tolist() == [0, 1]
    assert _report.group(result, Stop(size=3)).tolist() == [0, 1, 2]
    never = make_result([0.1, 0.2], [N, N])
    assert _report.group(never, Stop()).tolist() == [0]


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.706, "71 %"),
        (0.01, "1 %"),
        (0.004, "0.4 %"),
        (0.0001, "under 0.1 %"),
        (0.0, "under 0.1 %"),
        (0.9949, "99.5 %"),
        (0.99999, "over 99.9 %"),
    ],
)
def test_percent(probability, text):
    assert _report.percent(probability) == text


def test_plain_values_are_json_without_false_digits():
    value = {"a": np.float32(0.1), "b": jnp.asarray([1.5, np.nan]), 3: (np.int32(2), float("inf"), None, True)}
    text = json.dumps(_report.plain(value), allow_nan=False)
    assert text == '{"a": 0.1, "b": [1.5, null], "3": [2, null, null, true]}'


def test_arrays_leaves_out_what_the_result_does_not_know():
    result = make_result([0.1, 0.6], [N, Y])
    assert "start_probability" in _report.arrays(result)
    partial = GreedyResult(
        **{**{f: getattr(result, f) for f in result.__dataclass_fields__}, "start_probability": None}
    )
    arrays = _report.arrays(partial, target=3)
    assert "start_probability" not in arrays
    assert arrays["target"] == 3
    assert all(a.dtype != object for a in arrays.values())


class Picture:
    def __init__(self, fails):
        self.fails = fails

    def savefig(self, file, format):
        file.write(b"new")
        if self.fails:
            raise OSError("no space left")


def test_a_file_that_could_not_be_finished_is_not_there(tmp_path):
    (tmp_path / "cat.v2.png").write_bytes(b"old")
    with pytest.raises(OSError, match="no space left"):
        _report.write_files(tmp_path / "cat.v2", Picture(fails=True), {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["cat.v2.png"]
    assert (tmp_path / "cat.v2.png").read_bytes() == b"old"


def test_files_replace_what_was_there_and_keep_a_name_with_dots(tmp_path):
    (tmp_path / "cat.v2.png").write_bytes(b"old")
    paths = _report.write_files(
        tmp_path / "cat.v2", Picture(fails=False), {"a": np.arange(3)}, {"b": "é[\n1 2]", "c": [1, 2]}
    )
    assert [p.name for p in paths] == ["cat.v2.png", "cat.v2.npz", "cat.v2.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.v2.json", "cat.v2.npz", "cat.v2.png"]
    assert (tmp_path / "cat.v2.png").read_bytes() == b"new"
    with np.load(paths[1], allow_pickle=False) as file:
        assert file["a"].tolist() == [0, 1, 2]
    text = paths[2].read_text("utf-8")
    assert json.loads(text) == {"b": "é[\n1 2]", "c": [1, 2]}
    assert "[ 1, 2 ]" in text  # numbers side by side


@pytest.mark.parametrize("failing", [".png", ".npz", ".json"])
@pytest.mark.parametrize("before", [True, False])
def test_all_three_files_are_new_or_none_is(tmp_path, monkeypatch, failing, before):
    base = tmp_path / "cat"
    if before:
        for suffix in (".png", ".npz", ".json"):
            (tmp_path / f"cat{suffix}").write_bytes(b"old")
    genuine = type(tmp_path).replace

    def replace(self, target):
        if str(target).endswith(f"cat{failing}") and ".new" in self.name:
            raise OSError(28, "No space left on device")
        return genuine(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        _report.write_files(base, Picture(fails=False), {"a": np.arange(3)}, {"b": 1})
    there = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert there == ({f"cat{s}": b"old" for s in (".png", ".npz", ".json")} if before else {})


def test_bytes_that_are_no_text_are_spelt_out_in_the_record(tmp_path):
    paths = _report.write_files(tmp_path / "cat", Picture(fails=False), {}, {"photo": "caf\udce9.png", "é": "\0"})
    text = paths[2].read_bytes().decode()
    assert json.loads(text) == {"photo": "caf\udce9.png", "é": "\0"}


def test_letters_that_the_font_has_not_are_told_once(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.suptitle("日本語")
    with pytest.warns(UserWarning, match="lacks 3 letters of the names in it, which are drawn as boxes") as told:
        _report.write_files(tmp_path / "cat", figure, {}, {})
    assert len(told) == 1
