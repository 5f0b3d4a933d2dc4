"""The records that algorithms return, and the names of their axes.

Axis glossary, used in every shape of this package:

    H, W   height and width of the image the model sees
    P      players: regions of the image, labelled 0 .. P-1
    C      coalitions evaluated together
    K      classes
    T      tokens of a vision transformer, without its class token
    D      width of a token
    B      images in a batch

The contract that value functions keep is declared in `jaxmoxi.games.base`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import record, static

AnyArray = Array | np.ndarray  # what callers may pass; what this package returns is a jax.Array


class Readout(NamedTuple):
    """What one forward pass says about each coalition.

    values:        float32[C], the payoff.
    leads:         bool[C], the explained class is the top class (of independent labels: above a half); None if the
                   value function cannot tell.
    probabilities: float32[C] in [0, 1], of the explained class; None if the value function cannot tell.
    """

    values: Float[Array, "C"]
    leads: Bool[Array, "C"] | None = None
    probabilities: Float[Array, "C"] | None = None


@record
class GreedyInfo:
    """One step of a greedy search, as `greedy_step` returns it and `callback` receives it.

    step:        int32[], how many players are chosen by now, this one included.
    player:      int32[], the player chosen.
    value:       float32[], the payoff after the choice.
    leads:       bool[] and
    probability: float32[], as in `Readout`, after the choice; None if the value function cannot tell.
    """

    step: Int[Array, "*batch"]
    player: Int[Array, "*batch"]
    value: Float[Array, "*batch"]
    leads: Bool[Array, "*batch"] | None
    probability: Float[Array, "*batch"] | None


@record
class GreedyResult:
    """The outcome of `greedy_insertion` or `greedy_deletion`. P players, of which `num_steps` were chosen.

    order:           int32[P], players in the order chosen; -1 from `num_steps` on.
    values:          float32[P], the payoff after each choice; NaN from `num_steps` on.
    num_steps:       int32[], how many players were chosen before the search stopped.
    start_value:     float32[], the payoff of the start: of the empty coalition (insertion) or the full one.
    num_evaluations: int32[], coalitions scored as candidates: P(P+1)/2 for a full order. The start is not among them.
    leads:           bool[P], the explained class is the top class after each choice; None if the value function
                     cannot tell. False from `num_steps` on.
    probabilities:   float32[P], the explained class's probability after each choice, in [0, 1]; None likewise.
    start_leads:     bool[], and
    start_probability: float32[], the same two of the start.
    nan_player:      int32[], the player whose candidate had the value NaN and ended the search; -1 if none did. Outside
                     `jit` a NaN raises instead.
    insertion:       static; True for insertion, False for deletion.
    """

    order: Int[Array, "*batch P"]
    values: Float[Array, "*batch P"]
    num_steps: Int[Array, "*batch"]
    start_value: Float[Array, "*batch"]
    num_evaluations: Int[Array, "*batch"]
    leads: Bool[Array, "*batch P"] | None
    probabilities: Float[Array, "*batch P"] | None
    start_leads: Bool[Array, "*batch"] | None
    start_probability: Float[Array, "*batch"] | None
    nan_player: Int[Array, "*batch"]
    insertion: bool = static(default=True)


@record
class TwoClasses:
    """What is said of the two classes in one phase. Entry k is after k choices, entry 0 the phase's start.

    target_values, predicted_values: float32[P+1], the payoffs; NaN after the phase's end.
    target_probabilities, predicted_probabilities: float32[P+1] in [0, 1], likewise; None if the game cannot tell.
    leads: bool[P+1], the target leads; False after the phase's end.
    """

    target_values: Float[Array, "*batch P1"]
    predicted_values: Float[Array, "*batch P1"]
    target_probabilities: Float[Array, "*batch P1"] | None
    predicted_probabilities: Float[Array, "*batch P1"] | None
    leads: Bool[Array, "*batch P1"]


@record
class Discrimination:
    """The outcome of `discriminate`, for P players.

    removed:         int32[P], the players that phase one took away, in order; -1 from `num_removed` on.
    needed:          int32[P], the players that phase two found, in order; -1 from `num_needed` on.
    num_removed, num_needed: int32[].
    kept:            bool[P], the players that are left after phase one; the needed ones are among them.
    flipped:         bool[], the target leads at the end of phase one.
    removing:        `TwoClasses` along phase one.
    needing:         `TwoClasses` along phase two: of what is left of the image, or with `insertion` of the group alone.
    num_evaluations: int32[], coalitions scored as candidates in both phases. Their starts are not among them.
    nan_player:      int32[], the player whose candidate had the value NaN and ended the search; -1 if none did. Outside
                     `jit` a NaN raises instead.
    insertion:       static, whether phase two inserted.
    """

    removed: Int[Array, "*batch P"]
    needed: Int[Array, "*batch P"]
    num_removed: Int[Array, "*batch"]
    num_needed: Int[Array, "*batch"]
    kept: Bool[Array, "*batch P"]
    flipped: Bool[Array, "*batch"]
    removing: TwoClasses
    needing: TwoClasses
    num_evaluations: Int[Array, "*batch"]
    nan_player: Int[Array, "*batch"]
    insertion: bool = static(default=False)


@record
class Curve:
    """A readout at every group size along an order of P players. Entry k is the size k: entry 0 is the start
    (nothing inserted, nothing deleted), entry P the end (all inserted, all deleted).

    Areas are trapezoid sums over `shares`. The first of them is the one to report: it is in [0, 1] and means the same
    for every model and payoff.

    probability_area: float32[] in [0, 1], the area under `probabilities`; None if the value function cannot tell.
    accuracy_area: float32[] in [0, 1], the area under `leads`; None likewise.
    area:          float32[], the area under `values`, in the payoff's own unit: log-odds of any size by default, which
                   no other payoff's area can be compared with.
    values:        float32[P+1], the payoff.
    leads:         bool[P+1], accuracy of the single image at each size; None likewise.
    probabilities: float32[P+1] in [0, 1]; None likewise.
    shares:        float32[P+1], ascending from 0 to 1: how much is inserted (deleted) at each size.
    share:         static, of what: "players", so that `shares` is k / P, or "pixels" of the image.
    """

    values: Float[Array, "*batch P1"]
    area: Float[Array, "*batch"]
    leads: Bool[Array, "*batch P1"] | None
    accuracy_area: Float[Array, "*batch"] | None
    probabilities: Float[Array, "*batch P1"] | None
    probability_area: Float[Array, "*batch"] | None = None
    shares: Float[Array, "*batch P1"] | None = None
    share: str = static(default="players")


@record
class ShapleyEstimate:
    """Sampled Shapley values, and how sure they are.

    values:          float32[P]; they sum to v(all) - v(none), up to rounding.
    standard_errors: float32[P], of the values; 0 where they are exact.
    num_evaluations: int32[], coalitions evaluated.
    """

    values: Float[Array, "*batch P"]
    standard_errors: Float[Array, "*batch P"]
    num_evaluations: Int[Array, "*batch"]


@record
class Stop:
    """When a search ends early; what is first met counts, and nothing after it is computed.

    size:        after this many players (>= 1).
    value:       insertion: the payoff is at or above this; deletion: at or below.
    flip:        insertion: the explained class is the top class; deletion: it no longer is.
    probability: in (0, 1); as `value`, of the explained class's probability whatever the payoff.

    A condition that the start already meets ends the search with no player chosen. `flip` and `probability` need a
    value function that answers them: those of `pixel_value_fn` and `token_value_fn` do.
    """

    size: int | Int[Array, ""] | None = None
    value: float | Float[Array, ""] | None = None
    flip: bool | Bool[Array, ""] = False
    probability: float | Float[Array, ""] | None = None

    def check(self, told: Readout) -> None:
        """Raises InputError for levels that cannot be, or that the value function cannot answer.

        told: what the value function can tell of a coalition; None where it cannot (numbers or shapes).
        """
        if self.size is not None and (isinstance(self.size, bool) or self.size < 1):
            raise InputError(f"stop.size is the number of players to choose, at least 1; got {self.size}")
        if self.probability is not None and not 0 < self.probability < 1:
            raise InputError(f"the probability to stop at must lie between 0 and 1; got {self.probability}")
        if self.value is not None and np.isnan(self.value):
            raise InputError("the value to stop at is NaN; give the payoff at which to stop")
        if self.flip and told.leads is None:
            raise InputError(
                "the stop `flip` needs to know whether the explained class leads, and this value function cannot tell: "
                "give it a method `leads(masks) -> bool[C]`, use jaxmoxi.pixel_value_fn or token_value_fn, or stop at "
                "a payoff: value=..."
            )
        if self.probability is not None and told.probabilities is None:
            raise InputError(
                "the stop `probability` needs the explained class's probability, and this value function cannot tell: "
                "give it a method `readout` that returns it, use jaxmoxi.pixel_value_fn or token_value_fn, or stop at "
                "a payoff: value=..."
            )

    def as_arrays(self) -> Stop:
        """The same levels as arrays, so that another level is not another compilation; NaN and 2^31 - 1 for none."""
        return Stop(
            size=jnp.int32(2**31 - 1 if self.size is None else self.size),
            value=jnp.float32(np.nan if self.value is None else self.value),
            flip=jnp.asarray(self.flip),
            probability=jnp.float32(np.nan if self.probability is None else self.probability),
        )

    def met(self, now: Readout, size: Any, insertion: bool) -> Any:
        """Whether coalitions meet a condition, bool of their shape: the one rule by which every search ends.

        now:       what the value function says of coalitions, NumPy or JAX arrays of one shape.
        size:      int, how many players are chosen in each.
        insertion: True: the levels are met from below; False: from above.

        Levels are compared in float32. NaN meets no level.
        """
        sign = np.float32(1 if insertion else -1)
        met = now.values < -np.inf  # nothing yet: False in the values' shape and library
        if self.size is not None:
            met = met | (size >= self.size)
        if self.value is not None:
            met = met | (sign * now.values >= sign * _as_float32(self.value))
        if self.probability is not None and now.probabilities is not None:
            met = met | (sign * now.probabilities >= sign * _as_float32(self.probability))
        if now.leads is not None:
            met = met | (self.flip & (now.leads == insertion))
        return met


def _as_float32(level: Any) -> Any:
    return level if isinstance(level, Array) else np.float32(level)
