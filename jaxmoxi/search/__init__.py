"""Smaller groups than greedy's, for less work.

Pure functions over a value function, as the greedy search. Every result says how many forward passes it took.

`minimal_group`, `backward_elimination`, `bidirectional_greedy`, `blockwise_greedy`, `complete_order`,
`backward_forward_order` and `screened_greedy` have two forms, which ask the same questions and find the same. As one
compiled loop (`device`) they go into `jit` and `vmap`, and an accelerator never waits for the host; this is the form of
accelerators. On the host, question by question, they compile no more than the sizes that they meet; this is their form
outside `jit` on a CPU, and with a `callback`. `minimal_groups` searches in several images together, always in one loop.
The others decide on the host, and are called outside `jit`.

A caution: a very small group that is enough may exploit the model's blind spots rather than show what it sees. Give the
search `alternatives`, other fills and small shifts: the result then says how `stability` judges its group.
`robust_group` searches in several games at once, for a group that holds in all of them, or in a share.
"""

from jaxmoxi.games.removal import alternatives
from jaxmoxi.search.beam import BeamResult, beam_search
from jaxmoxi.search.connected import Connected
from jaxmoxi.search.holding import Stability, stability
from jaxmoxi.search.members import member_values
from jaxmoxi.search.minimal import backward_elimination, minimal_group
from jaxmoxi.search.necessary import necessary_and_sufficient
from jaxmoxi.search.oracle import GroupResult
from jaxmoxi.search.orders import (
    CompletedOrder,
    backward_forward_order,
    bidirectional_greedy,
    blockwise_greedy,
    complete_order,
)
from jaxmoxi.search.robust import RobustGroup, robust_group
from jaxmoxi.search.scorers import class_attention, gate_gradient
from jaxmoxi.search.screened import ScreenedResult, screened_greedy
from jaxmoxi.search.together import minimal_groups
from jaxmoxi.search.within import order_within

__all__ = [
    "BeamResult",
    "CompletedOrder",
    "Connected",
    "GroupResult",
    "RobustGroup",
    "ScreenedResult",
    "Stability",
    "alternatives",
    "backward_elimination",
    "backward_forward_order",
    "beam_search",
    "bidirectional_greedy",
    "blockwise_greedy",
    "class_attention",
    "complete_order",
    "gate_gradient",
    "member_values",
    "minimal_group",
    "minimal_groups",
    "necessary_and_sufficient",
    "order_within",
    "robust_group",
    "screened_greedy",
    "stability",
]
