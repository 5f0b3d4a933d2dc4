"""The JSON files of a checkpoint folder, read so that whatever stands in them is an answer or one error."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.torch_pickle import brief

_MOST_BYTES = 1 << 25  # the names and descriptions of 21,843 classes take a tenth of it
_MOST_DIGITS = 30  # of a whole number

LFS_HEAD = b"version https://git-lfs"
LFS = "is a git-lfs pointer, not the file itself; fetch it with: git lfs pull"


class MissingFileError(InputError, FileNotFoundError):
    """A folder or a file that is not there: an `InputError`, and a FileNotFoundError as before."""

    def __str__(self) -> str:
        return str(self.args[0])


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises MissingFileError if there is no such file, and ValueError for anything but a JSON object in UTF-8: also for
    NaN, infinity, numbers of more than 30 digits, keys that occur twice, and files of more than 32 MiB.
    """
    if not path.exists():
        raise MissingFileError(f"{path.parent} has no {path.name}; expected a checkpoint folder that holds one")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a JSON file")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes; expected a JSON file of at most {_MOST_BYTES}")
    raw = path.read_bytes()
    if raw.startswith(LFS_HEAD):
        raise InputError(f"{path} {LFS}")
    try:
        content = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not readable JSON: it is not UTF-8 ({error}); save it in UTF-8") from None
    except RecursionError:
        raise InputError(f"{path} is not readable JSON: its objects or lists are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON: {brief(error)}; correct it, or download it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; got a {type(content).__name__}")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise InputError(f"the key {brief(twice)!r} occurs twice")
    return content


def _refuse_constant(name: str) -> None:
    raise InputError(f"{name} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"the number {brief(text)} is too large")
    return number


def _int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise InputError(f"a number of {len(text)} digits")
    return int(text)
