"""Payoffs: how strongly a classifier's logits speak for one class."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmoxi.errors import InputError

Payoff = Literal["log_odds", "log_prob", "logit", "prob", "margin"]


def payoff_values(logits: Float[Array, "C K"], target: Int[Array, ""] | int, payoff: Payoff) -> Float[Array, "C"]:
    """How strongly the model believes in class `target`, float32[C].

    With p the softmax probability of the target class:

        "log_odds"  log p / (1 - p)  MoXI's payoff (the reference code calls it `modified`); any real number
        "log_prob"  log p            (`normal`); at most 0
        "logit"     the raw logit    (`yi`); any real number
        "prob"      p                in [0, 1]
        "margin"    the logit less the highest other one: above 0 where the class leads; any real number

    All are computed from the logits without forming p, so a p that rounds to 0 or 1 stays finite.
    """
    logits = logits.astype(jnp.float32)
    chosen = logits[:, target]
    if payoff == "logit":
        return chosen
    if payoff in ("log_odds", "margin"):
        others = jnp.where(jnp.arange(logits.shape[1]) == target, -jnp.inf, logits)
        return chosen - (jax.nn.logsumexp(others, axis=1) if payoff == "log_odds" else jnp.max(others, axis=1))
    log_prob = chosen - jax.nn.logsumexp(logits, axis=1)
    return jnp.exp(log_prob) if payoff == "prob" else log_prob


def check_payoff(payoff: object) -> Payoff:
    """`payoff`, if it is one of `Payoff`. Raises InputError otherwise."""
    for name in get_args(Payoff):
        if payoff == name:
            return name
    raise InputError(f"expected a payoff of {', '.join(get_args(Payoff))}; got {payoff!r}")
