"""The folder of a study: shards are there as a whole or not at all, and say what they hold."""

import io
import time

import numpy as np
import pytest
from etils import epath

from jaxmoxi.metrics import Line, Number
from jaxmoxi.study import run_study, store
from jaxmoxi.study.records import Measured, Result, from_arrays, to_arrays
from support.study import tiny_config


def test_a_folder_of_something_else_is_refused(models, photos, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files and no study"):
        run_study(photos, models, tmp_path, tiny_config(), progress=False)


def test_what_is_not_written_whole_is_not_there(tmp_path, monkeypatch):
    from etils import epath

    path = epath.Path(tmp_path) / "x.npz"
    monkeypatch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        store.write_whole(path, b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(tmp_path):
    from etils import epath

    (tmp_path / "0-000000.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="the shard .*0-000000.npz is damaged"):
        store.read_shard(epath.Path(tmp_path) / "0-000000.npz")


def test_npz_bytes_follow_from_their_arrays():
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        np.savez_compressed(file, a=np.arange(5))
        time.sleep(0.01)
    assert first.getvalue() == second.getvalue()


def result(index, num_players):
    """A result with every kind of record; photos of one model may differ in their number of players."""
    rng = np.random.default_rng(index)
    scores = rng.normal(size=(2, 2, num_players)).astype(np.float32)
    lines = tuple(
        Line("curves", "a", "tokens", "insertion", "leads", np.linspace(0, 1, n), rng.random(n).astype(np.float32))
        for n in (num_players, 2)
    )
    measured = Measured(
        target=index,
        top=3,
        methods=("a", "b/c"),
        regions=rng.integers(0, num_players, (4, 5)).astype(np.int32),
        scores=scores,
        orders=np.argsort(-scores, axis=-1).astype(np.int32),
        numbers=(Number("area", "a", "tokens", 0.1), Number("IoU", "b/c", "", float("nan"))),
        lines=lines,
    )
    return Result(index, f"é/{index}.png", "ok", "", 0.5, measured)


OWNER = store.Owner("a study", 0, {i: f"é/{i}.png" for i in (4, 6, 7)} | {5: "red/5.png"})
BROKEN = Result(5, "red/5.png", "unreadable", "not an image", 0.25, None)


@pytest.mark.parametrize(
    "results",
    [
        [result(4, 3), BROKEN, result(6, 5)],
        [BROKEN],
        [result(7, 2)._replace(measured=result(7, 2).measured._replace(numbers=(), lines=()))],
    ],
)
def test_a_shard_comes_back_as_it_was_written(results, tmp_path):
    path = epath.Path(tmp_path) / "0-000000.npz"
    store.write_shard(path, results, OWNER)
    found = store.read_shard(path)
    assert [str(r) for r in found] == [str(r) for r in results]  # arrays have no equality of their own
    for name, array in to_arrays(found).items():
        np.testing.assert_array_equal(array, to_arrays(results)[name])
        assert array.dtype == to_arrays(results)[name].dtype
        assert array.dtype != object


def test_a_shard_of_another_format_is_refused():
    with pytest.raises(ValueError, match="another version of jaxmoxi wrote it"):
        from_arrays({"index": np.arange(2)})
