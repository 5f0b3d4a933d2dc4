"""Games: what an image makes of a classifier, and how many coalitions are evaluated together.

`removals` draws several games of one image, in which the same players are hidden in different ways.
"""

from jaxmoxi.games.removals import removals

__all__ = ["removals"]
