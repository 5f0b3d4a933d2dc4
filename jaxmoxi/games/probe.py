"""Three coalitions before the first: is a game's value a function of its coalition alone?

A model in training mode draws dropout, or normalises by the batch; its values then depend on chance or on what else is
evaluated, and a search that compares them finds an order of neither. So each door evaluates the same coalition twice in
one batch, in other company and alone, and refuses a game whose answers differ. One structure and shape is asked once.
Inside `jit` and `vmap` there are no numbers to compare, and nothing is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.base import Game, check_num_players, read
from jaxmoxi.games.payoff import Link
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete

_WAY_OUT = (
    "It is probably in training mode. Switch it to evaluation: model.eval() before nnx.split (Flax NNX) or in PyTorch, "
    "train=False or deterministic=True (Linen), equinox.nn.inference_mode; jaxmoxi.from_nnx, from_linen, from_equinox, "
    "from_torch and from_callable take care of it or say what is missing"
)
_REMEMBERED = 256
_STRICT, _LOOSE = 1e-3, 5e-2


def check_players(game: Game, num_players: int) -> None:
    """Raises InputError for another number of players than the game's own, and as `check_rows`: what every door does
    before anything long starts."""
    check_num_players(game, num_players)
    check_rows(game, num_players)


def check_rows(game: Game, num_players: int) -> None:
    """Raises InputError if the game's answer for a coalition depends on chance or on the other rows of its batch.

    Only a game that says that it is `foreign` is asked. Answers may differ by rounding: by a thousandth of their
    spread, and by a twentieth where the game holds numbers of 16 bits, or where another batch size is another program.
    """
    if not game.foreign or not is_concrete(game):
        return
    key = _structure(game, num_players)
    if key in _passed:
        _passed.move_to_end(key)
        return
    answers = _ask(game, num_players)
    if answers is None:
        return
    first, other, alone = answers
    tolerance = _LOOSE if any(np.dtype(leaf.dtype).itemsize == 2 for leaf in _arrays(game)) else _STRICT
    if not _same(first[0], first[2], first, tolerance):
        raise InputError(f"the model gives the same image two answers in one batch ({_gap(first[0], first[2])}). "
                         f"{_WAY_OUT}")  # fmt: skip
    for answer, allowed in ((other[0], tolerance), (alone[0], _LOOSE)):
        if not _same(first[0], answer, first, allowed):
            raise InputError(
                f"the model's answer for an image depends on chance or on the other images of its batch "
                f"({_gap(first[0], answer)}). {_WAY_OUT}"
            )
    if game.link is not None:
        check_answers(np.concatenate([first, other]), game.link)
    if np.allclose(first[0], first[1], equal_nan=True):  # the company was the image's own likeness, which tells nothing
        return
    _passed[key] = None
    while len(_passed) > _REMEMBERED:
        _passed.popitem(last=False)


def check_answers(answers: Float[np.ndarray, "C K"], link: Link) -> None:
    """Warns of answers that are probabilities where logits are expected; raises InputError for the reverse."""
    if not np.isfinite(answers).all():
        return
    fit = bool((answers >= 0).all() and (np.abs(answers.sum(1) - 1) < 1e-3).all())
    if link == "softmax" and fit and answers.shape[1] > 1:
        warn(
            "the model's answers are not negative and sum to 1: they look like probabilities, and a softmax of them "
            'would be taken as if they were logits. If they are, say link="probabilities"; if not, ignore this',
        )
    if link == "sigmoid" and bool((answers >= 0).all() and (answers <= 1).all() and (answers > 0).any()):
        warn(
            'the model\'s answers all lie in [0, 1]: they look like probabilities, where link="sigmoid" expects '
            "logits. If they are, return logits, log(p / (1 - p)), instead; if not, ignore this",
        )
    if link == "probabilities" and not fit:
        sums = answers.sum(1)
        raise InputError(
            'link="probabilities" expects rows that are not negative and sum to 1; got numbers from '
            f"{answers.min():.4g} to {answers.max():.4g} with sums from {sums.min():.4g} to {sums.max():.4g}. "
            'Logits have link="softmax"; independent labels have link="sigmoid", of logits'
        )


@deliberate
def _ask(game: Game, num_players: int) -> list[np.ndarray] | None:
    """Answers [rows, K] to three batches that begin with everybody visible; None inside a trace.

    They are: that coalition twice, with another between; once, with others behind it; and alone.
    """
    whole, nobody = np.ones(num_players, bool), np.zeros(num_players, bool)
    half = np.arange(num_players) % 2 == 0
    batches = [[whole, nobody, whole], [whole, half, half], [whole]]
    everywhere = [np.tile(rows, (game.num_shards, 1)) for rows in batches]  # each device has a batch of its own
    try:
        outs = jax.block_until_ready([_answers(game, jnp.asarray(rows)) for rows in everywhere])
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None  # three rows do not fit; the door itself says what does
    if not is_concrete(outs):  # a closure over what is being traced
        return None
    return [np.asarray(out, np.float64) for out in outs]


@jax.jit
def _answers(game: Game, masks: Bool[Array, "C P"]) -> Float[Array, "C K"]:
    """The logits where the game has a classifier, else the values as one column."""
    if game.link is None:
        return read(game, masks, masks.shape[1]).values[:, None]
    return game.logits(masks).astype(jnp.float32)


_passed: OrderedDict[Any, None] = OrderedDict()


def _structure(game: Game, num_players: int) -> Any:
    leaves, treedef = jax.tree.flatten(game)
    return treedef, tuple((np.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves), num_players


def _arrays(game: Game) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(game) if hasattr(leaf, "dtype") and not _is_key(leaf)]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _same(a: np.ndarray, b: np.ndarray, rows: np.ndarray, tolerance: float) -> bool:
    """Whether two answers are equal up to rounding. NaN equals NaN: a NaN has an error of its own, later."""
    finite = rows[np.isfinite(rows)]
    spread = float(finite.max() - finite.min()) if finite.size else 0.0
    return bool(np.allclose(a, b, rtol=1e-5, atol=tolerance * spread + 1e-6, equal_nan=True))


def _gap(a: np.ndarray, b: np.ndarray) -> str:
    place = int(np.nanargmax(np.abs(a - b))) if np.isfinite(a - b).any() else 0
    return f"{a[place]:.5g} and {b[place]:.5g}"
