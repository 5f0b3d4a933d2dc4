"""Models and checkpoints on disk: what comes back, and what is said about what cannot."""

import dataclasses
import errno
import json
import resource
import shutil

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from jaxmoxi import p2p
from jaxmoxi.p2p import checkpoint
from support.trainer import CONFIG, NAMES


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(np.array_equal(x, y) for x, y in pairs)


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_there_and_back(fresh_model, saved):
    assert same(p2p.load(saved), fresh_model)
    assert p2p.load_class_names(saved) == NAMES
    assert (
        sum(p.stat().st_size for p in files(saved)) < 1.1 * sum(a.nbytes for a in jax.tree.leaves(fresh_model)) + 50_000
    )
    other = p2p.init(jax.random.key(1), dataclasses.replace(CONFIG, threshold_input="rerank"))
    p2p.save(saved, other)
    assert same(p2p.load(saved), other)
    assert p2p.load_class_names(saved) is None
    assert len(list(saved.iterdir())) == 2  # nothing of the one before
    with pytest.raises(ValueError, match="expected 3 class names; got 1"):
        p2p.save(saved, fresh_model, class_names=("disc",))


def test_a_saved_model_does_not_tell_where_it_was_written(written):
    assert len(files(written)) > 3
    assert not [p for p in files(written) if str(written.parent).encode() in p.read_bytes()]


def test_what_is_no_checkpoint(tmp_path, saved):
    with pytest.raises(ValueError, match=r"a folder with config.json; .*nowhere is no such folder"):
        p2p.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a folder without it"):
        p2p.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="is not the record of a P2P checkpoint"):
        p2p.load(tmp_path)
    with pytest.raises(ValueError, match="holds no checkpoints; expected a folder of a training run"):
        p2p.load(saved, best=True)


def test_another_architecture_is_told_by_what_differs(saved):
    record = json.loads((saved / "config.json").read_text())
    record["config"]["embedding_size"] = 5
    (saved / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"config.json is damaged .*checksum; if it was changed by hand"):
        p2p.load(saved)
    del record["checksum"]
    record["config"]["classifier"]["num_layers"] = 3
    (saved / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"misshapen: .*classifier/blocks.*\(expected \[3, 16\], found \[2, 16\]\)"):
        p2p.load(saved)
    record["config"]["selector"] = "lraspp"
    (saved / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"missing: selector/.*extra: selector/"):
        p2p.load(saved)


def test_a_damaged_one_is_one_clear_error(saved):
    largest = max(files(saved), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        p2p.load(saved)
    (arrays,) = saved.glob("arrays-*")
    shutil.rmtree(arrays)
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        p2p.load(saved)


def test_a_full_disk_leaves_the_saved_model(fresh_model, saved, monkeypatch):
    def full(path, state):
        raise ValueError(f"UNKNOWN: Error writing {path}: No space left on device [tensorstore]")

    before = {p: p.read_bytes() for p in files(saved)}
    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(
        OSError, match=r"the disk is full: could not write .*what was there before is untouched"
    ) as caught:
        p2p.save(saved, fresh_model)
    assert caught.value.errno == errno.ENOSPC
    assert {p: p.read_bytes() for p in files(saved)} == before


def test_a_disk_without_room_is_seen_before_writing(fresh_model, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    monkeypatch.setattr(ocp, "save", None)
    with pytest.raises(OSError, match="the disk is full: could not write"):
        p2p.save(tmp_path / "model", fresh_model)
    with (
        checkpoint.Checkpoints(tmp_path) as kept,
        pytest.raises(OSError, match="the disk is full: could not write .*1; there is no earlier checkpoint"),
    ):
        kept.save(1, fresh_model)


def test_a_write_that_the_system_refuses_leaves_the_saved_model(fresh_model, saved):
    before = {p: p.read_bytes() for p in files(saved)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not write .*what was there before is untouched"):
            p2p.save(saved, fresh_model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p: p.read_bytes() for p in files(saved)} == before
    assert same(p2p.load(saved), fresh_model)


def test_checkpoints_keep_the_last_and_the_best(tmp_path):
    tree = {"a": np.arange(3.0, dtype=np.float32), "b": {"c": np.int32(7)}}
    with checkpoint.Checkpoints(tmp_path) as kept:
        assert kept.latest is None
        assert kept.best is None
        for step, score in ((1, 0.2), (2, 0.9), (3, None), (4, 0.5), (5, None)):
            kept.save(step, jax.tree.map(lambda x, step=step: x + step, tree), score=score)
    with checkpoint.Checkpoints(tmp_path) as kept:
        assert (kept.latest, kept.best) == (5, 2)
        assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]
        back = kept.restore(2, tree)
        np.testing.assert_array_equal(back["a"], [2, 3, 4])
        assert back["b"]["c"] == 9
        with pytest.raises(ValueError, match=r"1 missing: d \[2\]; 1 extra: b/c \[\]"):
            kept.restore(2, {"a": tree["a"], "d": np.zeros(2, np.float32)})


def write_two(folder, tree):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with checkpoint.Checkpoints(folder) as kept:
        kept.save(1, tree)
        kept.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            kept.save(2, tree)
            kept.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_refused_write_leaves_the_last_checkpoint(tmp_path):
    tree = {"a": np.random.default_rng(0).normal(size=100_000).astype(np.float32)}
    with pytest.raises(OSError, match=r"could not write .*2; the checkpoint of step 1 is untouched; start again"):
        write_two(tmp_path, tree)
    with checkpoint.Checkpoints(tmp_path) as kept:
        assert kept.latest == 1
        np.testing.assert_array_equal(kept.restore(1, tree)["a"], tree["a"])
        kept.save(2, tree)
    with checkpoint.Checkpoints(tmp_path) as kept:
        assert kept.latest == 2


def test_a_model_replaces_no_run_and_no_other_programs_file(fresh_model, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(
        ValueError, match="that is not jaxmoxi's, which would be lost: save the model in another folder"
    ):
        p2p.save(tmp_path, fresh_model)
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_type": "vit"}
    with pytest.raises(ValueError, match="config.json is a file"):
        p2p.save(tmp_path / "config.json", fresh_model)
    with pytest.raises(ValueError, match="config.json is a file"):
        p2p.save(tmp_path / "config.json" / "model", fresh_model)
    record = {"config": json.loads(CONFIG.to_json()), "train": {}, "arrays": None}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="holds a training run, whose settings and checkpoints would be lost"):
        p2p.save(tmp_path, fresh_model)
