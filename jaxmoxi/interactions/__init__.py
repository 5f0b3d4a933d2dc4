"""Interaction indices of sets of players: exact from all values, or estimated from a budget of coalitions."""

from jaxmoxi.interactions.estimate import estimate
from jaxmoxi.interactions.exact import exact, from_table, values_table
from jaxmoxi.interactions.indices import INDICES, Index
from jaxmoxi.interactions.lattice import co_moebius, inverse_moebius, moebius, walsh_hadamard
from jaxmoxi.interactions.methods import METHODS, Method
from jaxmoxi.interactions.result import Interactions

__all__ = [
    "INDICES",
    "METHODS",
    "Index",
    "Interactions",
    "Method",
    "co_moebius",
    "estimate",
    "exact",
    "from_table",
    "inverse_moebius",
    "moebius",
    "values_table",
    "walsh_hadamard",
]
