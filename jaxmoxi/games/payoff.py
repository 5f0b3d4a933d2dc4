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

    All are computed from the logits without forming p, and "log_prob" and "prob" from the log-odds, so that a p near 0
    or 1 keeps its digits: near certainty, log p is minus the other classes' share, which p - 1 would round away.
    NaN where `target` is no class of the logits.
    """
    logits = logits.astype(jnp.float32)
    classes = jnp.arange(logits.shape[1])
    chosen = jnp.where(jnp.any(classes == target), logits[:, target], jnp.nan)
    if payoff == "logit":
        return chosen
    others = jnp.where(classes == target, -jnp.inf, logits)
    if payoff == "margin":
        return chosen - jnp.max(others, axis=1)
    log_odds = chosen - jax.nn.logsumexp(others, axis=1)
    if payoff == "log_odds":
        return log_odds
    return jax.nn.sigmoid(log_odds) if payoff == "prob" else -jax.nn.softplus(-log_odds)


def check_payoff(payoff: object) -> Payoff:
    """`payoff`, if it is one of `Payoff`. Raises InputError otherwise."""
    for name in get_args(Payoff):
        if payoff == name:
            return name
    raise InputError(f"expected a payoff of {', '.join(get_args(Payoff))}; got {payoff!r}")
