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

    All are computed from the logits without forming p, and "log_prob" and "prob" from the log-odds, so that a p near 0
    or 1 keeps its digits: near certainty, log p is minus the other classes' share, which p - 1 would round away.
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
    return jax.nn.sigmoid(log_odds) if payoff == "prob" else -jax.nn.softplus(-log_odds)


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
