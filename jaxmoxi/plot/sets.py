"""What the pictures of interactions share: the colours of the signs, and the words for sets, numbers and results."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.interactions.indices import INDICES
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.strokes import FLIP, INK

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.lines import Line2D

MORE, LESS = FLIP, "#0b3fd6"
"""The colours of values above and below 0, in all pictures of interactions."""
PALE = "#d9d9d9"
"""What is there and says nothing: the dots of players that are not in a set, sets without a value."""

_EVEN, _SHARP = (0.0, 0.35, 0.5, 0.65, 1.0), (0.0, 0.3, 0.46, 0.5, 0.54, 0.7, 1.0)  # where the colours of a scale stand


def on_photo() -> Colormap:
    """From clear blue to clear red through a little grey: white would be lost on a photo."""
    return _scale(("#0b3fd6", "#6f9bff", "#d0d0d0", "#ff8a66", FLIP))


def for_edges() -> Colormap:
    """As `on_photo`, but that weak edges, which lie over a grey photo, show their sign as well."""
    return _scale(("#0b3fd6", "#4f80ff", "#8fb0ff", "#d0d0d0", "#ffae94", "#ff6242", FLIP), _SHARP)


def on_paper() -> Colormap:
    """From clear blue to clear red through white; what has no value is grey."""
    return _scale(("#0b3fd6", "#8fb0ff", "#ffffff", "#ffa38a", FLIP))


def _scale(colours: tuple[str, ...], stops: tuple[float, ...] = _EVEN) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    pairs = list(zip(stops, colours, strict=True))
    return LinearSegmentedColormap.from_list("interaction", pairs).with_extremes(bad=PALE)


def checked(x: Any, *, pairs: bool = False) -> Interactions:
    """The interactions of one image. Raises ValueError for anything else; with `pairs`, for an order of 1 too."""
    if not isinstance(x, Interactions):
        raise InputError(f"expected interactions, as jm.interactions.exact returns them; got {type(x).__name__}")
    if x.values.ndim != 1:
        raise InputError(
            f"expected the interactions of one image, values [M]; got values {list(x.values.shape)}: draw one at a time"
        )
    sets, values = np.asarray(x.sets), np.asarray(x.values)
    if len(values) == 0 or sets.shape != (len(values), x.order):
        raise InputError(f"expected at least one set, sets [M, {x.order}]; got {list(sets.shape)}")
    if not np.isfinite(values).all() or not np.isfinite(np.asarray(x.baseline)):
        raise InputError(f"expected finite interactions; {int((~np.isfinite(values)).sum())} of {len(values)} are not")
    if sets.max() >= x.num_players:
        raise InputError(f"expected sets of the players 0 .. {x.num_players - 1}; one has the player {sets.max()}")
    if pairs and x.order < 2:
        raise InputError(f"this picture shows pairs: it needs order 2 or more; {x.index or 'x'} has order {x.order}")
    return x


def check_count(name: str, what: str, count: Any) -> int:
    """A number of things to draw. Raises ValueError unless it is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise InputError(f"{name} is how many {what} to draw, a whole number of at least 1; got {count!r}")
    return int(count)


def members_of(x: Interactions) -> list[list[int]]:
    """The players of each set."""
    return [[int(i) for i in row if i >= 0] for row in np.asarray(x.sets)]


def set_name(members: list[int]) -> str:
    """`{3, 17}`; one player is its number alone."""
    return str(members[0]) if len(members) == 1 else f"{{{', '.join(map(str, members))}}}"


def number(value: float, *, sign: bool = True) -> str:
    """Three digits, and a minus that is no hyphen: `+0.412`, `−1.23`."""
    text = f"{value:{'+' if sign else ''}.3g}"
    return text.replace("e-0", "e-").replace("-", "−")


def numbers(values: Any, *, like: Any = None) -> list[str]:
    """Values with the same decimals each: three digits for the largest, or for the largest of those in `like`."""
    largest = float(np.abs(values if like is None else like).max(initial=0.0))
    decimals = 2 - int(np.floor(np.log10(largest))) if largest else 0
    if not -4 <= decimals <= 6:
        return [number(float(value)) for value in values]
    return [f"{float(value):+.{max(decimals, 0)}f}".replace("-", "−") for value in values]


def count_of_sets(x: Interactions, size: int | None = None) -> int:
    """How many sets there can be: of one size, or of all sizes up to the order."""
    sizes = range(1, x.order + 1) if size is None else (size,)
    return sum(comb(x.num_players, s) for s in sizes)


def origin(x: Interactions) -> str:
    """What the values are and where they come from, in a line for below the picture."""
    count = int(x.num_evaluations)
    what = f"{x.index or 'interactions'} of order {x.order}, {x.num_players} players"
    if not x.estimated:
        return f"{what}  ·  exact, from all {count:,} coalitions"
    told = f"estimated from {count:,} coalitions" if count else "estimated"
    if x.faithfulness is not None:
        told += f", R² = {number(float(x.faithfulness), sign=False)} on others"
    return f"{what}  ·  {told}"


def below(x: Interactions, *more: str | None) -> str:
    """The lines below a picture: what the values are, and what else there is to tell."""
    return "\n".join([origin(x), *[line for line in more if line]])


def larger_sets(x: Interactions) -> str | None:
    """What a picture of pairs says of the sets that it cannot show."""
    return "sets of three players and more are not drawn" if x.order > 2 else None


def sign_words(x: Interactions) -> tuple[str, str]:
    """What a pair's value above and below 0 is called. Of indices that are no derivatives it is only a sign."""
    row = INDICES.get(x.index)
    if x.index == "OR" or (row is not None and row.generalised):
        return "positive", "negative"
    return "synergy", "redundancy"


def bar_handles() -> list[Any]:
    """The legend of the two colours of bars."""
    from matplotlib.patches import Patch

    return [Patch(color=MORE, label="raises the value"), Patch(color=LESS, label="lowers it")]


def error_handle() -> Line2D:
    """The legend of whiskers."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, marker="|", markersize=6, linewidth=1.0, label="± 1 standard error")
