"""What each member of a group adds to it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.search.shared import neighbours
from jaxmoxi.types import AnyArray


@deliberate
def member_values(v: ValueFn, group: Bool[AnyArray, "P"], *, insertion: bool = True) -> Float[Array, "P"]:
    """What each member adds to a group: the group's value less that without the member, float32[P]; 0 for the others.

    It says what the group loses when one member goes and all others stay, not who is how important: members that can
    stand in for each other add little, each. Takes one evaluation more than the group has members.

    v:         a value function of P players; of several games, `jm.robust_value_fn`.
    group:     bool[P].
    insertion: True: the group is what is visible. False: it is hidden, and a member adds by how much hiding it too
               lowers the value of what is left.

    Raises ValueError for a group of another shape, and for values that are NaN outside `jit`.
    """
    group = jnp.asarray(group)
    if group.ndim != 1 or group.dtype != bool:
        raise InputError(f"expected a group bool[P]; got {group.dtype} of shape {list(group.shape)}")
    game = as_game(v)
    check_players(game, group.shape[0])
    if not is_concrete((game, group)):
        raise InputError("member_values looks at who the members are: call it outside jit, vmap and grad")
    chosen = np.asarray(group)
    members = np.flatnonzero(chosen)
    groups = np.concatenate([chosen[None], neighbours(chosen, members)])
    values = readouts(game, jnp.asarray(groups if insertion else ~groups)).values
    broken = np.isnan(np.asarray(values))
    if broken.any():
        shown = np.flatnonzero(groups[np.argmax(broken)]).tolist()
        raise nan_error(f"for the group {shown} ({'alone' if insertion else 'hidden'})")
    added = (values[0] - values[1:]) * (1 if insertion else -1)
    return jnp.zeros(len(chosen), jnp.float32).at[members].set(added)
