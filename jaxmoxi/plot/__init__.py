"""Pictures of explanations as matplotlib figures; `jaxmoxi.plot.figures` says what they share."""

from jaxmoxi.plot.figures import curves, explanation, flip_size, group, heat, heatmap, interactions

__all__ = ["curves", "explanation", "flip_size", "group", "heat", "heatmap", "interactions"]
