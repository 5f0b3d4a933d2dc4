"""The registry of attribution methods: all that the rest of the package knows about a method stands in its entry.

A method is a function and an entry, in one file of this folder:

    register(Method("mine", my_scores, "Author, YEAR", help="what it asks", colour="#e377c2"))

`jaxmoxi.attribution` imports every file of its folder. Studies, their reports and figures, and the command's help then
take the method from `METHODS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Float

from jaxmoxi.attribution.game import Problem, need_attention, need_features, need_gradients
from jaxmoxi.errors import InputError

_CHECKS: Mapping[str, Callable[[Problem, str], None]] = {
    "gradients": need_gradients,
    "features": need_features,
    "attention": need_attention,
}


class Effort(NamedTuple):
    """How much work a method may do on one image, said in the same words for all methods.

    num_players: P.
    samples:     evaluations of the game that a sampling method may use, at least 2.
    steps:       players that a search chooses one by one before it takes several at a time; None: all.
    batch_size:  coalitions in one forward pass, all devices together; None: chosen by the memory there is.
    """

    num_players: int
    samples: int = 2000
    steps: int | None = None
    batch_size: int | None = None


def no_options(effort: Effort) -> dict[str, Any]:
    """For a method that takes none of its keywords from an `Effort`."""
    del effort
    return {}


def coalition_batches(effort: Effort) -> dict[str, Any]:
    """For a method whose `batch_size` counts coalitions in one forward pass, and which takes nothing else."""
    return {"batch_size": effort.batch_size}


def sampled_coalitions(effort: Effort) -> dict[str, Any]:
    """For a method that evaluates `num_samples` coalitions, `batch_size` in one forward pass."""
    return {"num_samples": effort.samples, "batch_size": effort.batch_size}


def one_each(effort: Effort) -> int:
    """The cost of a method that evaluates one coalition for each player, and the whole image."""
    return effort.num_players + 1


def all_samples(effort: Effort) -> int:
    """The cost of a method that evaluates as many coalitions as it may sample."""
    return effort.samples


@dataclasses.dataclass(frozen=True)
class Method:
    """One attribution method.

    name:     as in `METHODS`.
    explain:  (key, problem, *, options) -> scores float32[P], higher is more important.
    source:   the paper.
    needs:    of the model: "gradients" of its logits, its "features" (a CNN's, or a vision transformer's tokens), its
              "attention" (vision transformers only); "" if the game is enough.
    draws:    `explain` needs a key; the others take None.
    complete: what its scores sum to where it keeps its promise: "players", the payoff of all players less that of none;
              "pixels", with each score once for each of the player's pixels, the payoff of the image less that of an
              image of zeros. "": it promises no sum.
    directed: `explain` takes `insertion=True` or False, and has an order for each.
    traceable: `explain` may be called inside `jit` and `vmap`; others decide on the host what they ask next.
    by_default: asked for where a study names no methods.
    help:     what the method asks, in a few words.
    options:  the keywords of `explain` that follow from an `Effort`; it says there what each of them counts.
    cost:     about how many evaluations of the model one order takes, a gradient counted as three; studies tell from it
              how long they will take. None: next to nothing.
    place:    methods are listed in ascending order of their place, by name where two share one.
    colour:   of its lines in figures, as Matplotlib takes it. `line`: their style. `bold`: whether they stand out.
    """

    name: str
    explain: Callable[..., Float[Array, "P"]]
    source: str
    needs: Literal["", "gradients", "features", "attention"] = ""
    draws: bool = False
    directed: bool = False
    _: dataclasses.KW_ONLY
    complete: Literal["", "players", "pixels"] = ""
    traceable: bool = True
    by_default: bool = True
    help: str
    options: Callable[[Effort], dict[str, Any]] = no_options
    cost: Callable[[Effort], int] | None = None
    place: int = 500
    colour: str
    line: Literal["-", "--", "-.", ":"] = "-"
    bold: bool = False

    def applies(self, problem: Problem) -> None:
        """Raises ValueError that says what is missing where the method cannot explain this problem."""
        if self.needs:
            _CHECKS[self.needs](problem, self.name)

    def keywords(self, effort: Effort, *, insertion: bool = True) -> dict[str, Any]:
        """The keywords of `explain` for this effort, and for an order of insertion or deletion where it has both."""
        return {**self.options(effort), **({"insertion": insertion} if self.directed else {})}


_methods: dict[str, Method] = {}
METHODS: Mapping[str, Method] = MappingProxyType(_methods)


def register(method: Method) -> Method:
    """Adds a method to `METHODS` and returns it.

    Raises ValueError for a name that another method has.
    """
    if method.name in _methods:
        raise InputError(f"expected a name that no other attribution method has; got {method.name!r}, which is taken")
    listed = sorted([*_methods.values(), method], key=lambda m: (m.place, m.name))
    _methods.clear()
    _methods.update({m.name: m for m in listed})
    return method
