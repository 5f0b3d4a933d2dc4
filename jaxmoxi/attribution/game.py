"""What every attribution method is given: one image, one class, one game, one network.

A `Problem` is a pytree, so one compiled method serves every image and all weights of the same shapes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt32

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.image import pixel_value_fn
from jaxmoxi.games.outputs import logits_of
from jaxmoxi.games.payoff import Link, Payoff, check_payoff, payoff_values
from jaxmoxi.models.networks.base import Features
from jaxmoxi.moxi.curves import warn_of_ties
from jaxmoxi.pytrees import Packed, is_concrete, output_shapes, pack, record, static
from jaxmoxi.regions.label_maps import check_regions, pool_regions
from jaxmoxi.types import AnyArray

Seed = Key[Array, ""] | UInt32[Array, "2"] | None  # None where nothing is drawn at random


@record
class Problem:
    """Made by `problem`. What an attribution method explains; P players, K classes.

    v:           the game, masks bool[C, P] -> float32[C]; methods that ask about coalitions ask it.
    model:       the network, for methods that look inside it or take its gradient: an object with `logits`, such as a
                 Classifier, or a packed function of images.
    image:       float[H, W, channels], as the network wants it (normalised).
    target:      int32[], the class explained.
    regions:     int32[H, W], labels 0 .. P-1: the players in pixel space, also where the players are tokens.
    num_players: static, P.
    link:        static, what makes probabilities of the network's answers, as `pixel_value_fn` takes it.
    """

    v: Game
    model: Any
    image: Num[Array, "*batch H W channels"]
    target: Int[Array, "*batch"]
    regions: Int[Array, "*batch H W"]
    num_players: int = static()
    link: Link = static(default="softmax")

    def network(self) -> Any:
        """The model as it was given."""
        return self.model.unpack() if isinstance(self.model, Packed) else self.model

    def logits(self, images: Num[Array, "B H W channels"]) -> Float[Array, "B K"]:
        """The network's logits of images, float32[B, K]."""
        network = self.network()
        out = network.logits(images) if hasattr(network, "logits") else network(images)
        return logits_of(out, len(images))

    def payoff(self) -> Payoff:
        """The payoff of the game; "log_odds" where the value function is a user's own and names none."""
        return self.v.payoff or "log_odds"

    def pool(self, pixels: Float[Array, "H W"]) -> Float[Array, "P"]:
        """The mean of a map over each player's pixels, float32[P]."""
        return pool_regions(pixels.astype(jnp.float32), self.regions, self.num_players)


def problem(
    model: Any, image: Any, target: Any, regions: Any, *, v: ValueFn | None = None, link: Link | None = None
) -> Problem:
    """A `Problem` for attribution methods.

    model:   a Classifier, or any logits function [B, H, W, channels] -> float32[B, K]. Grad-CAM needs `features` and
             `classify`, attention rollout a vision transformer's Classifier.
    image:   float[H, W, channels], as `pixel_value_fn` takes it (normalised). target: the class explained.
    regions: int[H, W], labels 0 .. P-1; where the players are tokens, `grid_regions` with the model's `token_grid`.
    v:       the game of the same image, class and players; None means `pixel_value_fn(model.logits, ...)`. It may be
             spread over devices (`shard_coalitions`).
    link:    as for `pixel_value_fn`; None means that of `v`, or the model's own.

    Raises ValueError for shapes that disagree, a model that is no function of images, and a game of other players or
    another class.
    """
    if not hasattr(model, "logits") and not callable(model):
        raise InputError(
            "expected a Classifier or a function images [B, H, W, channels] -> logits [B, K]; got "
            f"{type(model).__name__}"
        )
    given = None if v is None else as_game(v)
    link = given.link if link is None and given is not None else link
    if target is None and given is not None and given.target is not None:
        target = given.target
    # Also beside a given game this looks at the model and the image, of which the game says nothing.
    pixels = pixel_value_fn(getattr(model, "logits", model), image, target, regions, link=link)
    game, image, target = pixels if given is None else given, pixels.image, pixels.target
    regions, num_players = check_regions(regions, image.shape[0], image.shape[1])
    own = game.num_players
    num_players = own if num_players is None else num_players
    if num_players is None:
        raise InputError("the number of players of traced regions is not known; make the problem outside jit")
    if own is not None and own != num_players:
        raise InputError(
            f"the game has {own} players, the regions {num_players}; give regions of the same players "
            "(of tokens: grid_regions with the model's token_grid)"
        )
    theirs = target if game.target is None else game.target
    if is_concrete((theirs, target)) and int(theirs) != int(target):
        raise InputError(f"the game explains class {int(theirs)}, the problem class {int(target)}")
    return Problem(
        v=game,
        model=model if hasattr(model, "logits") else pack(model),
        image=image,
        target=target,
        regions=regions,
        num_players=num_players,
        link=pixels.link,
    )


def order_of(scores: Float[AnyArray, "P"], *, ties: Seed = None) -> Int[Array, "P"]:
    """Players from the highest score to the lowest, int32[P].

    ties: a random key, such as jax.random.key(0): players with equal scores stand in random order, and each succession
          of them is equally likely. None: the lowest index first, which favours one corner of the image; a warning
          tells that scores are tied.

    Scores themselves, ties included, are compared by `jaxmoxi.metrics.score_agreement`.
    Raises ValueError if a score is NaN (outside `jit`; inside it, NaN comes last, and nothing warns).
    """
    scores = jnp.asarray(scores)
    if is_concrete(scores) and bool(jnp.isnan(scores).any()):
        raise InputError(
            f"the score of player {int(np.argmax(np.isnan(scores)))} is NaN; check the model's logits for this image"
        )
    if ties is None:
        if is_concrete(scores):
            warn_of_ties(np.asarray(scores), "order_of(scores, ties=jax.random.key(0)) breaks ties at random")
        return jnp.argsort(-scores, stable=True).astype(jnp.int32)
    shuffled = jax.random.permutation(ties, scores.shape[0])
    return shuffled[jnp.argsort(-scores[shuffled], stable=True)].astype(jnp.int32)


def without_game(problem: Problem) -> Problem:
    """For methods that ask the network alone: what they compile must not depend on the game, nor run on all the
    devices that the game may be spread over."""
    return dataclasses.replace(problem, v=as_game(_no_game))


def _no_game(masks: Bool[Array, "C P"]) -> Float[Array, "C"]:
    raise TypeError("this problem was given without its game")


def need_key(key: Seed, name: str) -> Any:
    """The key. Raises ValueError if there is none."""
    if key is None:
        raise InputError(f"{name} draws at random: give it a key, such as jax.random.key(0); got None")
    return key


def need_features(problem: Problem, name: str) -> None:
    """Raises ValueError for a model without feature maps."""
    network = problem.network()
    if not (hasattr(network, "features") and hasattr(network, "classify")):
        raise InputError(
            f"{name} needs a network's feature maps: a model with features(images) and classify(features), such as "
            "jaxmoxi.models.load gives (the Classifier itself, not its logits); got a function of images"
        )


def need_attention(problem: Problem, name: str) -> None:
    """Raises ValueError for a model without attention."""
    network = problem.network()
    if not hasattr(network, "scan_attention") or network.token_grid is None:
        raise InputError(
            f"{name} needs a vision transformer's attention: a Classifier of a ViT or DeiT; this model has none"
        )


def need_gradients(problem: Problem, name: str) -> None:
    """Raises ValueError for a model that cannot be differentiated, such as a callback into NumPy or PyTorch."""
    try:
        output_shapes(_differentiate, without_game(problem))
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} needs the gradient of the model's logits, which this model has not: {reason}") from (
            error
        )


def _differentiate(problem: Problem) -> Any:
    return jax.grad(lambda image: problem.logits(image[None]).sum())(problem.image)


def cut(features: Any) -> Features:
    """What a model's `features` returned, as `Features`: a network of the user's own may return its maps alone."""
    return features if isinstance(features, Features) else Features(features)


def class_scores(problem: Problem, logits: Float[Array, "B K"], payoff: Payoff) -> Float[Array, "B"]:
    """The payoff that each row of logits has for the class explained. Raises ValueError for an unknown payoff."""
    return payoff_values(logits, problem.target, check_payoff(payoff), link=problem.link)
