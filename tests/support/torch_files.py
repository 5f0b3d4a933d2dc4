"""Checkpoints written by hand, opcode for opcode as PyTorch writes them."""

import collections
import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

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
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
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
        f"data/{key}": (data.view(f"u{data.real.itemsize}").byteswap() if swap else data).tobytes()
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


def small(written):
    state = collections.OrderedDict(
        a=whole("Half", [[1, 2], [3, 4]]), b=whole("Long", [5], "1"), c=whole("Int", [], "2")
    )
    state._metadata = {"": {"version": 1}}
    return written({"model": state, "epoch": 3})
