"""Pictures of explanations as matplotlib figures; `jaxmoxi.plot.figures` says what they share."""

from jaxmoxi.plot.chosen import flip_size, heat
from jaxmoxi.plot.figures import curves, explanation, group, groups, heatmap
from jaxmoxi.plot.matrix import heat_map
from jaxmoxi.plot.network import interaction_network
from jaxmoxi.plot.pairs import interactions
from jaxmoxi.plot.parts import group_parts
from jaxmoxi.plot.pictures import picture
from jaxmoxi.plot.rivals import discrimination
from jaxmoxi.plot.upset import upset
from jaxmoxi.plot.waterfall import waterfall

__all__ = [
    "curves",
    "discrimination",
    "explanation",
    "flip_size",
    "group",
    "group_parts",
    "groups",
    "heat",
    "heat_map",
    "heatmap",
    "interaction_network",
    "interactions",
    "picture",
    "upset",
    "waterfall",
]
