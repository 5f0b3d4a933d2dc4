"""Payoffs: how strongly a classifier's answer speaks for one class, and what kind of answer it is."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError

Payoff = Literal["log_odds", "log_prob", "logit", "prob", "margin"]
Link = Literal["softmax", "sigmoid", "probabilities"]
"""How a classifier's K numbers become probabilities.

"softmax"        logits of classes of which one is true
"sigmoid"        logits of labels of which each is true or not, by itself; one logit (K = 1) is that of class 1, yes,
                 against class 0, no
"probabilities"  the softmax probabilities themselves
"""

_LARGEST = 87.0  # the logarithm of the largest odds that float32 holds, rounded down


def payoff_values(
    logits: Float[Array, "C K"], target: Int[Array, ""] | int, payoff: Payoff, *, link: Link = "softmax"
) -> Float[Array, "C"]:
    """How strongly the model believes in class `target`, float32[C].

    With p the probability of the target class:

        "log_odds"  log p / (1 - p)  MoXI's payoff (the reference code calls it `modified`); any real number
        "log_prob"  log p            (`normal`); at most 0
        "logit"     the raw logit    (`yi`); any real number
        "prob"      p                in [0, 1]
        "margin"    above 0 where the model answers this class; any real number. The logit less the highest other one;
                    under "sigmoid", where no label stands against another, the logit itself

    All are computed from the logits without forming p: near certainty, log p is minus the other classes' share, which
    p - 1 would round away. "prob" itself has a spacing of 6e-8 near 1; where this package takes differences of such
    probabilities it takes them of 1 - p (`probability_remainders`).
    Under the link "probabilities" the logits are the logarithms of the rows; "log_odds" takes 1 - p as the sum of the
    others, and a probability of 0 counts as the smallest normal float32, about 1e-38, so that payoffs stay finite.
    NaN where `target` is no class of the logits.
    """
    logits = as_logits(logits, link)
    classes = jnp.arange(logits.shape[1])
    chosen = jnp.where(jnp.any(classes == target), logits[:, target], jnp.nan)
    if payoff == "logit":
        return chosen
    others = jnp.where(classes == target, -jnp.inf, logits)
    if payoff == "margin":
        return chosen if link == "sigmoid" else chosen - jnp.max(others, axis=1)
    log_odds = chosen if link == "sigmoid" else chosen - jax.nn.logsumexp(others, axis=1)
    if payoff == "log_odds":
        return log_odds
    if payoff == "prob":
        return jax.nn.sigmoid(log_odds)
    log_prob = -jax.nn.softplus(-log_odds)
    if link == "sigmoid":
        return log_prob
    # Above a half no other logit is higher: each difference is taken before its exponential, so nothing is rounded to
    # the size of the logits.
    odds_against = jnp.sum(jnp.exp(jnp.minimum(others - chosen[:, None], 0)), axis=1)
    return jnp.where(log_odds > 0, -jnp.log1p(odds_against), log_prob)


def probability_remainders(
    logits: Float[Array, "C K"], target: Int[Array, ""] | int, *, link: Link = "softmax"
) -> Float[Array, "C"]:
    """The payoff "prob" less the nearer of 0 and 1, float32[C] in [-1/2, 1/2], each to a few parts in 10^7 of itself.

    p itself up to a half, and above it p - 1, whose sign bit is set even where it is 0. Numbers near 1 have a spacing
    of 6e-8 in float32, so that the differences of near-certain probabilities are lost in p; they are kept here, as
    1 - p is computed from the other classes. `split_remainders` is the way back.
    NaN where `target` is no class of the logits.
    """
    answers = logits.astype(jnp.float32)
    lost: Bool[Array, "C"] | bool = False  # p is less than any float32
    if link == "probabilities":
        shares = jnp.maximum(answers, jnp.finfo(jnp.float32).tiny)
        classes = jnp.arange(shares.shape[1])
        chosen = jnp.where(jnp.any(classes == target), shares[:, target], jnp.nan)
        against = jnp.sum(jnp.where(classes == target, 0, shares), axis=1) / chosen
    else:
        rows = as_logits(answers, link)
        classes = jnp.arange(rows.shape[1])
        chosen = jnp.where(jnp.any(classes == target), rows[:, target], jnp.nan)[:, None]
        others = jnp.zeros_like(chosen) if link == "sigmoid" else rows
        absent = False if link == "sigmoid" else (classes == target) | (rows == -jnp.inf)  # which have no share
        ahead = jnp.where(absent, -jnp.inf, others - chosen)
        lost = jnp.any(ahead > _LARGEST, axis=1)
        against = jnp.sum(jnp.exp(jnp.minimum(ahead, _LARGEST)), axis=1)
        against = jnp.where(jnp.isnan(chosen[:, 0]), jnp.nan, against)
    # Each branch is finite where the other is taken, so that both have a derivative.
    below = jnp.minimum(against, 1)
    return jnp.where(against <= 1, -below / (1 + below), jnp.where(lost, 0, 1 / (1 + against)))


def split_remainders(remainders: Float[Array, "*C"]) -> tuple[Float[Array, "*C"], Float[Array, "*C"]]:
    """(the nearer of 0 and 1, the remainder), float32, which sum to the probabilities.

    Weighted sums of each, added at the end, keep what a weighted sum of probabilities rounds away.
    """
    return jnp.signbit(remainders).astype(remainders.dtype), remainders


def answers_class(logits: Float[Array, "C K"], target: Int[Array, ""] | int, link: Link) -> Bool[Array, "C"]:
    """Whether the model answers class `target`, bool[C]: it is the top class (of equals the lowest), or, under
    "sigmoid", its probability is above a half."""
    if link == "sigmoid":
        return payoff_values(logits, target, "logit", link=link) > 0
    return jnp.argmax(logits.astype(jnp.float32), axis=1) == target


def class_probabilities(logits: Float[Array, "C K"], link: Link) -> Float[Array, "C classes"]:
    """The probability of every class, float32[C, K] in [0, 1] ([C, 2] of one logit); rows sum to 1, but under
    "sigmoid" of several labels."""
    logits = as_logits(logits, link)
    return jax.nn.sigmoid(logits) if link == "sigmoid" else jax.nn.softmax(logits, axis=-1)


def as_logits(answers: Float[Array, "C K"], link: Link) -> Float[Array, "C classes"]:
    """What a classifier with this link returns, as logits float32[C, K] of its classes.

    Logarithms, where it returns probabilities; [C, 2], of no and yes, where it returns one logit under "sigmoid".
    """
    answers = answers.astype(jnp.float32)
    if link == "sigmoid" and answers.shape[1] == 1:
        return jnp.concatenate([-answers, answers], axis=1)
    return jnp.log(jnp.maximum(answers, jnp.finfo(jnp.float32).tiny)) if link == "probabilities" else answers


def check_payoff(payoff: object) -> Payoff:
    """`payoff`, if it is one of `Payoff`. Raises InputError otherwise."""
    for name in get_args(Payoff):
        if payoff == name:
            return name
    raise InputError(f"expected a payoff of {', '.join(get_args(Payoff))}; got {payoff!r}")


def check_link(link: object) -> Link:
    """`link`, if it is one of `Link`. Raises InputError otherwise."""
    for name in get_args(Link):
        if link == name:
            return name
    raise InputError(
        f"expected a link of {', '.join(get_args(Link))}, what makes probabilities of the answers; got {link!r}"
    )
