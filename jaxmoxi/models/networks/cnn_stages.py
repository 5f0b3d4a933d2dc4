"""The stages of an EfficientNet that Hugging Face's settings list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import whole
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.cnn_config import Row, Stages

_MOST_STAGES = 100
_DEFAULTS = {
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
}


def blocks_of_settings(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The blocks with equal margins. Raises ValueError for what is no list of whole numbers."""
    value = settings.get("depthwise_padding")
    value = [] if value is None else value
    if not isinstance(value, list | tuple) or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        raise InputError(f"depthwise_padding must be a list of blocks, counted from 0; got {brief(repr(value))}")
    return tuple(value)


def stages_of_settings(settings: Mapping[str, Any]) -> Stages:
    """The stages, at width and depth 1; () where they are EfficientNet's own.

    Raises ValueError for lists that are none, that differ in length, or that make no chain.
    """
    lists: dict[str, list[int]] = {}
    for name, default in _DEFAULTS.items():
        value = settings.get(name, default)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_STAGES:
            raise InputError(f"{name} must be a list of whole numbers, one for each stage; got {brief(repr(value))}")
        lists[name] = [whole({name: v}, name, 1) for v in value]
    lengths = {len(value) for value in lists.values()}
    if len(lengths) > 1:
        raise InputError(f"expected {', '.join(lists)} of the same number of stages; got {brief(lists)}")
    if lists == _DEFAULTS:
        return ()
    chain = [32, *lists["out_channels"][:-1]]
    if lists["in_channels"] != chain:
        raise InputError(
            f"expected in_channels {chain}, which the stem and the stages before give; got {lists['in_channels']}"
        )
    if any(k % 2 == 0 for k in lists["kernel_sizes"]) or any(s > 2 for s in lists["strides"]):
        raise InputError(
            f"expected odd kernel_sizes and strides of 1 or 2; got {lists['kernel_sizes']} and {lists['strides']}"
        )
    columns = ("expand_ratios", "out_channels", "num_block_repeats", "strides", "kernel_sizes")
    return tuple((Row(*row, True),) for row in zip(*(lists[name] for name in columns), strict=True))  # type: ignore[arg-type]
