"""Which opcodes of a pickle are understood, and which are refused before anything of it runs."""

import collections
import pickle

import numpy as np
import pytest

from jaxmoxi.models.checkpoints import torch_pickle
from support.torch_files import (
    MAGIC,
    NUMBERS,
    PROTOCOL,
    Call,
    Name,
    Storage,
    by_hand,
    equal,
    pickled,
    read,
    tensor,
    whole,
)


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
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "torch.os.system"])
def test_code_is_named_and_not_run(tmp_path, written, name, protocol):
    argument = f"touch {tmp_path}/ran" if name.endswith("system") else f"open({str(tmp_path / 'ran')!r}, 'w')"
    with pytest.raises(ValueError, match=rf"model.bin asks for {name}, which is not .*torch.save\(model.state_dict"):
        read(tmp_path, written({"w": whole("Float", NUMBERS), "x": Call(name, argument)}, protocol))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_of_other_classes_are_passed_over(tmp_path, written, protocol):
    """No class is looked up: none of these but the standard library's exist here."""
    state = {name: Call(name, (1, 2), "text") for name in ("argparse.Namespace", "my.Config", "pathlib.PosixPath")}
    state["list of a class"] = Listed("my.List")
    state["mapping of a class"] = Mapped("omegaconf.dictconfig.DictConfig")
    state["enumeration"] = Call("builtins.getattr", Name("my.Enum"), "FIRST")
    state["scalar"] = Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", False, True), b"12345678")
    state["loss"] = Call("torch.nn.CrossEntropyLoss")
    state["dtype"], state["class"] = Name("torch.float32"), Name("my.Class")
    state["default"] = collections.defaultdict(list, {"a": [1]})
    state["frozen"], state["more"] = frozenset([1]), collections.Counter("aab")
    state["w"] = whole("Float", NUMBERS)
    tensors = read(tmp_path, written(state, protocol))
    assert list(tensors) == ["w"]
    equal(tensors["w"], NUMBERS.astype(np.float32))


class Listed(list):
    def __init__(self, name):
        super().__init__([1, 2])
        self.call = Call(name)

    def __reduce_ex__(self, _):
        return *self.call.parts, {"attribute": 1}, iter(self)


class Mapped(Listed):
    def __reduce_ex__(self, _):
        return *self.call.parts, {"attribute": 1}, None, iter([("a", 1), (2, "b"), ("c", whole("Float", [1], "c"))])


@pytest.mark.parametrize(
    "name", ["_rebuild_tensor_v9", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_device_tensor_from_numpy"]
)
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path, written, name):
    state = {"w": whole("Float", NUMBERS), "x": Call(f"torch._utils.{name}", 1)}
    with pytest.raises(ValueError, match=rf"holds the tensor x as torch._utils.{name}, which is not .* to float32"):
        read(tmp_path, written(state))
    equal(read(tmp_path, written({"state_dict": {"w": state["w"]}, "other": state}))["w"], NUMBERS.astype(np.float32))


def typed(dtype, shape, key="0"):
    storage = Storage("Untyped", np.arange(8, dtype=np.float32).view(np.uint8), key, place="torch.storage")
    storage.data = np.arange(8, dtype=np.float32).view(np.uint8)
    storage.claim = (*storage.claim[:4], 32, None)
    args = (storage, 0, shape, (1,), False, collections.OrderedDict(), Name(dtype))
    return Call("torch._utils._rebuild_tensor_v3", *args)


def test_tensors_whose_dtype_stands_beside(tmp_path, written):
    equal(read(tmp_path, written({"w": typed("torch.float32", (8,))}))["w"], np.arange(8, dtype=np.float32))
    for dtype in ("float8_e4m3fn", "float8_e5m2", "uint16"):
        with pytest.raises(ValueError, match=f"holds the tensor w as {dtype}, which is not"):
            read(tmp_path, written({"w": typed(f"torch.{dtype}", (8,))}))
    with pytest.raises(ValueError, match="reaches to element"):
        read(tmp_path, written({"w": typed("torch.float32", (32,))}))


def test_tensors_with_attributes(tmp_path, written):
    args = whole("Float", NUMBERS).parts[1]

    def built(kind, function="torch._utils._rebuild_tensor_v2"):
        return Call("torch._tensor._rebuild_from_type_v2", Name(function), Name(kind), args, {"tag": "x"})

    for kind in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        equal(read(tmp_path, written({"w": built(kind)}))["w"], NUMBERS.astype(np.float32))
    for bad in (built("my.Subclass"), built("torch.Tensor", "torch._utils._rebuild_wrapper_subclass")):
        with pytest.raises(ValueError, match="holds the tensor w as"):
            read(tmp_path, written({"w": bad}))
    nested = built("torch.Tensor", "torch._tensor._rebuild_from_type_v2")
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path, written({"w": nested}))


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
    monkeypatch.setattr(torch_pickle, "_MAX_STEPS", 100_000)
    with pytest.raises(ValueError, match=match):
        read(tmp_path, by_hand(b"\x80\x02" + opcodes + b"."))


def test_one_storage_of_two_kinds(tmp_path, written):
    floats, integers = whole("Float", NUMBERS), whole("Int", NUMBERS)
    with pytest.raises(ValueError, match="storage 0 has two descriptions"):
        read(tmp_path, written({"a": floats, "b": integers}))


def test_pending_negation(tmp_path, written):
    with pytest.raises(ValueError, match="pending arithmetic"):
        read(tmp_path, written({"w": tensor(Storage("Float", NUMBERS), (2,), (2,), 0, {"neg": True})}))
