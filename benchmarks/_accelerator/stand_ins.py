"""What the benchmark puts in the place of packages that a borrowed machine lacks, and nothing more than it needs.

The package proper depends on `jaxtyping`, whose names stand in annotations alone, and on `safetensors`, to read
weights. A machine lent for minutes often has neither, and no network. A stand-in takes a name only where no package has
it, and the result says which names were taken.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_SHAPED = ("Bool", "Float", "Int", "Key", "Num", "PyTree", "Shaped", "UInt8", "UInt32")
_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1"}
_DTYPES |= {"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"}


def install() -> list[str]:
    """Puts a stand-in wherever a package is missing. Returns their names."""
    made = {"jaxtyping": _jaxtyping, "safetensors": _safetensors}
    missing = [name for name in made if importlib.util.find_spec(name) is None]
    for name in missing:
        made[name]()
    return missing


class _Annotation:
    """`Float[Array, "P"]` is `Array`: what an annotation says when nobody checks its shape."""

    def __class_getitem__(cls, item: Any) -> Any:
        return item[0] if isinstance(item, tuple) else item


def _jaxtyping() -> None:
    import jax

    module: Any = ModuleType("jaxtyping")
    module.Array = jax.Array
    for name in _SHAPED:
        setattr(module, name, type(name, (_Annotation,), {}))
    sys.modules["jaxtyping"] = module


def _safetensors() -> None:
    module: Any = ModuleType("safetensors")
    numpy: Any = ModuleType("safetensors.numpy")
    module.SafetensorError = type("SafetensorError", (Exception,), {})
    module.numpy, numpy.load_file = numpy, load_file
    sys.modules |= {"safetensors": module, "safetensors.numpy": numpy}


def load_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name.

    The file is eight bytes with the length of a JSON header, the header, and the numbers: little-endian, row by row.
    Raises KeyError for a dtype that is not listed here, and ValueError for a tensor that its bytes do not fill.
    """
    import ml_dtypes  # comes with JAX

    raw = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, start = json.loads(raw[8 : 8 + length]), 8 + length
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        kind = info["dtype"]
        dtype = np.dtype(ml_dtypes.bfloat16) if kind == "BF16" else np.dtype(_DTYPES[kind]).newbyteorder("<")
        begin, end = info["data_offsets"]
        tensors[name] = np.frombuffer(raw[start + begin : start + end], dtype).reshape(info["shape"])
    return tensors
