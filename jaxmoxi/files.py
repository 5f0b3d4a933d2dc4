"""The settings that a folder on disk was made with, against those of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def changed_settings(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each as `NAME (there OLD, now NEW)`, in alphabetical order; nested ones are named `OUTER.INNER`."""
    old, new = _flat(there), _flat(now)
    return [
        f"{name} (there {old.get(name)!r}, now {new.get(name)!r})"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {k: v for name, part in tree.items() for k, v in _flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): tree}
