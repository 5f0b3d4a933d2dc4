"""Pictures of explanations as matplotlib figures; `jaxmoxi.plot.figures` says what they share."""

from jaxmoxi.plot.chosen import flip_size, heat
from jaxmoxi.plot.figures import curves, explanation, group, groups, heatmap
from jaxmoxi.plot.pairs import interactions
from jaxmoxi.plot.pictures import picture

__all__ = ["curves", "explanation", "flip_size", "group", "groups", "heat", "heatmap", "interactions", "picture"]
