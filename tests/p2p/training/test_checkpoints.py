"""The checkpoints of a run when some of them are damaged."""

import json
import shutil

import numpy as np
import pytest

from jaxmoxi.p2p.training.checkpoints import Checkpoints

TREE = {"a": np.random.default_rng(0).normal(size=300).astype(np.float32), "b": {"c": np.int32(7)}}


def plus(step):
    return {"a": TREE["a"] + np.float32(step), "b": {"c": TREE["b"]["c"] + np.int32(step)}}


@pytest.fixture
def run(tmp_path):
    with Checkpoints(tmp_path) as kept:
        for step, score in ((1, 0.2), (2, 0.9), (3, None), (4, 0.5)):
            kept.save(step, plus(step), score=score)
    return tmp_path


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    bad = bytearray(path.read_bytes())
    bad[len(bad) // 2] ^= 4
    path.write_bytes(bad)


def cut(folder):
    for path in [p for p in (folder / "state").rglob("*") if p.is_file()]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = {
    "a bit of the numbers": lambda at: flip(largest(at)),
    "a bit of the index": lambda at: flip(at / "state" / "manifest.ocdbt"),
    "files cut short": cut,
    "a file missing": lambda at: (at / "state" / "manifest.ocdbt").unlink(),
    "half a folder": lambda at: shutil.rmtree(at / "state"),
    "an empty folder": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_run_goes_on_from_the_last_good_one(run, damage, capfd):
    damage(run / "checkpoints" / "4")
    with pytest.warns(
        UserWarning, match=r"of step 4 \(.*\) is damaged: the run goes on from step 3.*damaged-4, and"
    ) as told:
        step, tree = Checkpoints(run).restore_last(TREE)
    assert len(told) == 1
    assert step == 3
    np.testing.assert_array_equal(tree["a"], plus(3)["a"])
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "damaged-4"]
    with Checkpoints(run) as kept:
        kept.save(4, plus(40))
    assert Checkpoints(run).restore_last(TREE)[1]["b"]["c"] == 47
    assert capfd.readouterr().err == ""


def test_two_damaged_ones_and_all(run):
    for step in ("4", "3"):
        flip(largest(run / "checkpoints" / step))
    (run / "damaged-4").mkdir()  # from another time
    with pytest.warns(
        UserWarning, match=r"of step 4 \(.*\), of step 3 \(.*\) are damaged: the run goes on from step 2"
    ):
        assert Checkpoints(run).restore_last(TREE)[0] == 2
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "damaged-3", "damaged-4", "damaged-4-2"]
    flip(largest(run / "checkpoints" / "2"))
    with pytest.raises(
        ValueError, match=r"checkpoints holds no checkpoint that is good: .* of step 2 .* or begin anew"
    ):
        Checkpoints(run).restore_last(TREE)
    assert Checkpoints(run).latest == 2  # what is damaged stays, where nothing takes its place
    assert Checkpoints(run / "nowhere").restore_last(TREE) is None


def test_a_changed_score_is_noticed(run):
    path = run / "checkpoints" / "4" / "metrics" / "metrics"
    record = json.loads(path.read_text())
    assert Checkpoints(run).best == 2
    for text in (json.dumps({**record, "score": 0.95}), '{"score": "high"}', "{", "[]", "", "\x00"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"4/metrics/metrics is damaged .*score is not the one that was written"):
            _ = Checkpoints(run).best
    path.write_text('{"score": 0.5}')  # as older versions wrote it
    assert Checkpoints(run).best == 2
    path.write_text("{")
    assert Checkpoints(run).restore_last(TREE)[0] == 4  # the arrays are good
    with pytest.warns(UserWarning, match="of step 4 is damaged"), Checkpoints(run) as kept:
        kept.save(5, plus(5), score=0.1)
    assert Checkpoints(run).steps == [2, 3, 5]


def test_a_step_can_be_written_again(run):
    with Checkpoints(run) as kept:
        kept.save(4, plus(100), score=1.0)
    assert Checkpoints(run).restore_last(TREE)[1]["b"]["c"] == 107
    assert Checkpoints(run).best == 4
