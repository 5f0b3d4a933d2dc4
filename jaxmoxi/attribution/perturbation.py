"""Attribution by hiding players and looking at what becomes of the prediction.

Sources: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014 (occlusion); Petsiuk, Das
and Saenko, "RISE", BMVC 2018; Novello, Fel and Vigouroux, "Making Sense of Dependence: Efficient Black-box Explanations
Using Dependence Measure", NeurIPS 2022 (HSIC attribution).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmoxi.attribution.game import Problem, Seed, need_key
from jaxmoxi.attribution.methods import Method, all_samples, coalition_batches, one_each, register, sampled_coalitions
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, GameWrapper
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.moxi.contexts import full_context_shapley
from jaxmoxi.pytrees import record, static
from jaxmoxi.types import Readout


def occlusion(key: Seed, problem: Problem, *, batch_size: int | None = None) -> Float[Array, "P"]:
    """Occlusion: what the payoff loses when one player is hidden, v(N) - v(N - i). P + 1 values.

    Deviations: the window that is hidden is a player, where the paper slides a square; it takes the game's fill, where
    the paper paints it grey; and the number looked at is the game's payoff, where the paper has the probability. So it
    is MoXI's full-context value, whose order is that of `moxi_single` in deletion.

    key: unused, may be None. batch_size: as for `evaluate`.
    """
    del key
    return full_context_shapley(problem.v, problem.num_players, batch_size=batch_size)


def rise(
    key: Seed,
    problem: Problem,
    *,
    num_samples: int = 4000,
    keep: float = 0.5,
    cells: int = 7,
    batch_size: int | None = None,
) -> Float[Array, "P"]:
    """RISE: the mean of random masks, each weighted by the probability of the class under it; not negative.

        S = sum_n f(image under M_n) M_n / (num_samples * keep)

    *Pixel games* (`pixel_value_fn`) have the paper's masks: `cells` x `cells` truths, enlarged bilinearly to one cell
    more than the image and cut out at a random place; what a mask dims fades into the game's fill (the paper: into 0,
    which is the default fill). S is a map, and a player's score its mean over the player's pixels. *All other games*,
    such as those of tokens, which are there or not, have random coalitions for masks, every player visible by itself.

    f is the class's probability, as in the paper, whatever the game's payoff; a value function of the user's own that
    tells no probabilities gives its values.

    num_samples: masks, >= 1; as many values.
    keep:        in (0, 1), the probability that a cell (player) is visible.
    cells:       cells along one side, from 1 to the shorter side of the image. Unused by coalitions of tokens.
    batch_size:  as for `evaluate`.

    Deviations: the enlarging repeats the edges, where the authors' code mirrors them. The same key gives the same
    scores, whatever the batch size. Raises ValueError without a key and for numbers that do not fit.
    """
    given = need_key(key, "RISE")
    height, width = problem.image.shape[:2]
    if num_samples < 1 or not 0 < keep < 1 or not 1 <= cells <= min(height, width):
        raise InputError(
            f"expected num_samples of at least 1, keep between 0 and 1 and cells from 1 to {min(height, width)}; "
            f"got {num_samples}, {keep} and {cells}"
        )
    if not problem.v.blends:
        masks = jax.random.bernoulli(given, keep, (num_samples, problem.num_players))
        return _chance(readouts(problem.v, masks, batch_size=batch_size)) @ masks / (num_samples * keep)
    soft = SoftMaskGame(problem.v, cells, (height, width))
    codes = _draw(given, num_samples, keep, cells, (height, width))
    weights = _chance(readouts(soft, codes, batch_size=batch_size))
    return problem.pool(_weighted_masks(codes, weights, cells, (height, width)) / (num_samples * keep))


def _chance(out: Readout) -> Float[Array, "C"]:
    return out.values if out.probabilities is None else out.probabilities


@record
class SoftMaskGame(GameWrapper):
    """RISE's masks as a game, so that they are chunked and spread over devices as every game is.

    Its "players" are the cells of the small mask, row by row, then one for each row and one for each column at which
    the enlarged mask may be cut out, of which one each is visible.
    """

    v: Game
    cells: int = static()
    shape: tuple[int, int] = static()

    # Its players are not those of the game inside: a mask shows no number of players, and fades instead of blending.
    num_players: ClassVar[None] = None  # pyright: ignore[reportIncompatibleMethodOverride]
    sized: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleMethodOverride]
    gated: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleMethodOverride]
    blends: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleMethodOverride]

    def around(self, game: Game) -> SoftMaskGame:
        """The same masks over another game."""
        return dataclasses.replace(self, v=game)

    def readout(self, masks: Bool[Array, "C Q"], *, max_visible: int | None = None) -> Readout:
        """The readout of the image under each mask."""
        return self.v.blended(jax.vmap(partial(_enlarge, cells=self.cells, shape=self.shape))(masks))


def _steps(cells: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of pixels in a cell."""
    return -(-shape[0] // cells), -(-shape[1] // cells)


def _draw(key: Any, count: int, keep: float, cells: int, shape: tuple[int, int]) -> Bool[Array, "C Q"]:
    keys = jax.random.split(key, 3)
    places = [
        jax.random.randint(k, (count, 1), 0, step) == jnp.arange(step)
        for k, step in zip(keys[1:], _steps(cells, shape), strict=True)
    ]
    return jnp.concatenate([jax.random.bernoulli(keys[0], keep, (count, cells * cells)), *places], axis=1)


def _enlarge(code: Bool[Array, "Q"], *, cells: int, shape: tuple[int, int]) -> Float[Array, "H W"]:
    """One mask in [0, 1]. Bilinear interpolation is one matrix for the rows and one for the columns."""
    small = code[: cells * cells].reshape(cells, cells).astype(jnp.float32)
    start = cells * cells
    sides = []
    for step, length in zip(_steps(cells, shape), shape, strict=True):
        whole = jax.image.resize(jnp.eye(cells), ((cells + 1) * step, cells), "linear")
        place = jnp.argmax(code[start : start + step])
        sides.append(jax.lax.dynamic_slice_in_dim(whole, place, length))
        start += step
    return sides[0] @ small @ sides[1].T


@partial(jax.jit, static_argnums=(2, 3))
def _weighted_masks(
    codes: Bool[Array, "C Q"], weights: Float[Array, "C"], cells: int, shape: tuple[int, int]
) -> Float[Array, "H W"]:
    def add(total: Any, row: Any) -> Any:
        code, weight = row
        return total + weight * _enlarge(code, cells=cells, shape=shape), None

    return jax.lax.scan(add, jnp.zeros(shape), (codes, weights))[0]


def hsic(key: Seed, problem: Problem, *, num_samples: int = 1500, batch_size: int | None = None) -> Float[Array, "P"]:
    """HSIC attribution: how much the payoff depends on whether a player is visible, in either direction.

        HSIC_i = tr(K_i H L H) / (n - 1)^2,   K_i[a, b] = [m_a,i = m_b,i],   L[a, b] = exp(-(y_a - y_b)^2 / (2 s^2))

    over n random coalitions m_a with values y_a; H = I - 1/n takes the mean out of rows and columns. Not negative, up
    to rounding: a player that lowers the payoff scores as high as one that raises it as much.

    With z_i the column of truths less its mean, H K_i H = 2 z_i z_i^T: all players together are one product with L.

    num_samples: n coalitions, >= 2; as many values. They are a Latin hypercube of two levels: every player is visible
                 in half of them (rounded down).
    batch_size:  as for `evaluate`.

    Deviations: s is the median distance between two values, where the authors' code takes the median value: a payoff
    may be negative, and its zero is arbitrary. Players take the place of the paper's square grid, the game's fill (or
    absence) that of its black. Raises ValueError without a key and for fewer than two samples.
    """
    given = need_key(key, "HSIC attribution")
    if num_samples < 2:
        raise InputError(f"num_samples must be at least 2; got {num_samples}")
    keys = jax.random.split(given, problem.num_players)
    half = jnp.arange(num_samples) < num_samples // 2
    masks = jax.vmap(lambda k: jax.random.permutation(k, half), out_axes=1)(keys)
    values = readouts(problem.v, masks, batch_size=batch_size).values
    return dependence(masks, values)


@jax.jit
def dependence(masks: Bool[Array, "n P"], values: Float[Array, "n"]) -> Float[Array, "P"]:
    """The HSIC estimate of every player's visibility with the value; see `hsic`. n^2 memory."""
    count = len(values)
    apart = jnp.abs(values[:, None] - values)
    width = jnp.nanmedian(jnp.where(jnp.eye(count, dtype=bool), jnp.nan, apart))
    kernel = jnp.exp(-0.5 * (apart / jnp.where(width > 0, width, 1)) ** 2)
    centred = masks - masks.mean(0, dtype=jnp.float32)
    return 2 * jnp.einsum("np,np->p", centred, kernel @ centred) / (count - 1) ** 2


register(
    Method(
        "occlusion",
        occlusion,
        "Zeiler and Fergus, ECCV 2014",
        help="what the payoff loses when one region is hidden",
        options=coalition_batches,
        cost=one_each,
        place=40,
        colour="#17becf",
    )
)
register(
    Method(
        "rise",
        rise,
        "Petsiuk, Das and Saenko, BMVC 2018",
        draws=True,
        help="the mean of random masks, weighted by the probability under each",
        options=sampled_coalitions,
        cost=all_samples,
        place=50,
        colour="#bcbd22",
    )
)
register(
    Method(
        "hsic",
        hsic,
        "Novello, Fel and Vigouroux, NeurIPS 2022",
        draws=True,
        help="how much the payoff depends on whether a region is visible, over random coalitions",
        options=sampled_coalitions,
        cost=all_samples,
        place=60,
        colour="#000080",
    )
)
