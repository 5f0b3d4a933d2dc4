"""The game an image makes of a classifier: payoffs, hidden pixels, removed tokens.

`pixel_value_fn` serves every classifier: a coalition's hidden pixels are replaced by a fill. `token_value_fn` serves
vision transformers: a coalition's hidden tokens are absent from the encoder, as if they had never been there.
Both return pytrees, and both answer `leads`, `probabilities` and `readout` from one forward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxmoxi.compiling import compiled
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game
from jaxmoxi.games.fill import fill_image, of_kind
from jaxmoxi.games.inputs import (
    check_fits,
    check_image,
    check_layout,
    check_not_torch,
    check_target,
    link_of,
    needs_numbers,
    no_trace_error,
)
from jaxmoxi.games.outputs import logits_of
from jaxmoxi.games.payoff import (
    Link,
    Payoff,
    answers_class,
    as_logits,
    check_payoff,
    payoff_values,
    probability_remainders,
)
from jaxmoxi.games.probe import check_rows
from jaxmoxi.guards import deliberate
from jaxmoxi.kernels.select import first_true
from jaxmoxi.pytrees import Packed, is_concrete, output_shapes, pack, record, static
from jaxmoxi.regions.label_maps import check_regions, region_adjacency, region_sizes, token_players, visible_pixels
from jaxmoxi.types import Readout

Logits = TypeVar("Logits", bound="ImageGame")


class ImageGame(Game):
    """What all games of images share: everything said about a coalition follows from a classifier's logits."""

    gated = True
    payoff: Payoff  # pyright: ignore[reportIncompatibleVariableOverride]
    link: Link  # pyright: ignore[reportIncompatibleVariableOverride]
    target: Int[Array, "*batch"]  # pyright: ignore[reportIncompatibleVariableOverride]
    remainder: bool = False  # whether values are less the nearer of 0 and 1, see `remainders`

    @property
    def compiles(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the classifier is this package's own. A user's function may look at arrays that are others later."""
        return not self.foreign

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """Value, lead and probability of each coalition from one forward pass."""
        return self.read(self.logits(masks, max_visible=max_visible))

    def read(self, logits: Float[Array, "C K"]) -> Readout:
        """What rows of logits say about the class explained; between equal logits the lowest class leads.

        Under the link "sigmoid" a label leads where its probability is above a half.
        """
        return Readout(
            values=self.score(logits),
            leads=answers_class(logits, self.target, self.link),
            probabilities=payoff_values(logits, self.target, "prob", link=self.link),
        )

    def score(self, logits: Float[Array, "C K"]) -> Float[Array, "C"]:
        """The payoff of rows of logits."""
        if self.remainder:
            return probability_remainders(logits, self.target, link=self.link)
        return payoff_values(logits, self.target, self.payoff, link=self.link)

    def known(self, logits: Float[Array, "C K"], labels: Int[Array, "..."], num_players: int) -> Float[Array, "C K"]:
        """The logits, NaN where a label is no player.

        Labels are looked at here only where they could not be when the game was made, inside `jit` or `vmap`.
        """
        if self.num_players is not None:
            return logits
        return jnp.where(jnp.all((labels >= 0) & (labels < num_players)), logits, jnp.nan)

    def __call__(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C"]:
        """The payoff of each coalition, float32[C]."""
        return self.score(self.logits(masks, max_visible=max_visible))

    def relaxed_logits(self, gates: Float[Array, "C P"]) -> Float[Array, "C K"]:
        """The classifier's logits with players that are partly there, float32[C, K]. Differentiable in the gates."""
        raise TypeError(f"{type(self).__name__} has no relaxed logits")

    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """The payoff with players that are partly there, float32[C]: gates in [0, 1], at 0 and 1 that of the masks."""
        return self.score(self.relaxed_logits(gates))

    def with_payoff(self: Logits, payoff: Payoff) -> Logits:
        """The same game under another payoff (see `payoff_values`). Raises InputError for one that is unknown."""
        payoff = check_payoff(payoff)
        check_fits(payoff, self.link)
        return dataclasses.replace(self, payoff=payoff, remainder=False)  # type: ignore[type-var]

    def remainders(self: Logits) -> Logits | None:
        """The same game, whose values are probabilities less the nearer of 0 and 1; None under another payoff."""
        return dataclasses.replace(self, remainder=True) if self.payoff == "prob" else None  # type: ignore[type-var]


@record
class PixelValueFn(ImageGame):
    """Made by `pixel_value_fn`. Hidden pixels take the fill; `max_visible` is accepted and changes nothing."""

    blends: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]

    logits_fn: Packed
    image: Num[Array, "*batch H W channels"]
    fill: Num[Array, "*batch H W channels"]
    regions: Int[Array, "*batch H W"]
    target: Int[Array, "*batch"]
    payoff: Payoff = static()
    link: Link = static()
    num_players: int | None = static()
    foreign: bool = static()
    remainder: bool = static(default=False)

    @compiled
    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of the image with the hidden players' pixels filled."""
        shown = visible_pixels(masks, self.regions)[..., None]
        return self.known(self.classify(jnp.where(shown, self.image, self.fill)), self.regions, masks.shape[1])

    def classify(self, images: Num[Array, "C H W channels"]) -> Float[Array, "C K"]:
        """What the classifier answers for images, as an array (see `jaxmoxi.games.outputs`)."""
        return logits_of(self.logits_fn(images), len(images))

    @compiled
    def relaxed_logits(self, gates: Float[Array, "C P"]) -> Float[Array, "C K"]:
        """The logits of images blended, player by player, between the fill (gate 0) and the image (1).

        Raises InputError for an image of integers, of which a blend has no derivative.
        """
        if jnp.issubdtype(self.image.dtype, jnp.integer):
            raise InputError(
                f"an image of {self.image.dtype} has no gradient; give floats and a function of float images"
            )
        logits = self._blended_logits(jnp.take(gates, self.regions, axis=1))
        return self.known(logits, self.regions, gates.shape[1])

    @compiled
    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of images blended, pixel by pixel, between the fill (share 0) and the image (1)."""
        return self.read(self._blended_logits(shares))

    def player_sizes(self, num_players: int) -> Int[Array, "P"]:
        """Pixels of each player."""
        return region_sizes(self.regions, num_players)

    def player_borders(self, num_players: int) -> Int[Array, "P P"]:
        """The borders between the regions, in pairs of adjacent pixels."""
        return region_adjacency(self.regions, num_players)

    def _blended_logits(self, shares: Float[Array, "C H W"]) -> Float[Array, "C K"]:
        image, fill = self.image, self.fill
        if jnp.issubdtype(image.dtype, jnp.integer):  # of which differences would overflow
            image, fill = image.astype(jnp.float32), fill.astype(jnp.float32)
        return self.classify(of_kind(fill + shares[..., None] * (image - fill), self.image.dtype))


@record
class TokenValueFn(ImageGame):
    """Made by `token_value_fn`. Hidden tokens are gone; with `max_visible` the encoder runs on that many only."""

    sized: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]

    model: Any
    tokens: Any
    players: Int[Array, "*batch T"]
    target: Int[Array, "*batch"]
    payoff: Payoff = static()
    link: Link = static()
    num_players: int | None = static()
    tokens_per_player: int | None = static()
    foreign: bool = static()
    remainder: bool = static(default=False)
    regions: Int[Array, "*batch H W"] | None = None  # None where every token is a player

    @compiled
    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of the visible tokens alone."""
        shown = jnp.take(masks, self.players, axis=1)
        count = shown.shape[1]
        if max_visible is not None and self.tokens_per_player is not None:
            count = min(count, max_visible * self.tokens_per_player)
        if count == shown.shape[1]:
            rows = jax.tree.map(lambda t: jnp.broadcast_to(t, (len(masks), *t.shape)), self.tokens)
            return self.known(self.model.encode_tokens(rows, shown), self.players, masks.shape[1])
        # The visible tokens of each coalition, in their order, then padding that attention never reads.
        kept, present = first_true(shown, count)
        rows = jax.tree.map(lambda t: jnp.take(t, kept, axis=0, mode="clip"), self.tokens)
        logits = self.model.encode_tokens(rows, present)
        return self.known(logits, self.players, masks.shape[1])

    @compiled
    def relaxed_logits(self, gates: Float[Array, "C P"]) -> Float[Array, "C K"]:
        """The logits with every attention weight on a player's tokens multiplied by its gate, then normalised again.

        At gate 0 a token still reads the others, but nobody reads it: the logits are those without it, and the
        derivative says what it would bring. Needs a model whose `encode_tokens` takes such gates for `present`.
        """
        rows = jax.tree.map(lambda t: jnp.broadcast_to(t, (len(gates), *t.shape)), self.tokens)
        logits = self.model.encode_tokens(rows, jnp.take(gates.astype(jnp.float32), self.players, axis=1))
        return self.known(logits, self.players, gates.shape[1])

    def player_sizes(self, num_players: int) -> Int[Array, "P"]:
        """Tokens of each player, which are of one size; a player that owns none hides nothing."""
        return jnp.zeros(num_players, jnp.int32).at[self.players].add(1)

    def player_borders(self, num_players: int) -> Int[Array, "P P"]:
        """The borders between the regions of the label map, in pixels; between tokens, where they are the players."""
        if self.regions is None:
            return region_adjacency(jnp.reshape(self.players, self.model.token_grid), num_players)
        return region_adjacency(self.regions, num_players)


@deliberate
def pixel_value_fn(
    logits_fn: Callable[..., Any],
    image: Any,
    target: Any,
    regions: Any,
    *,
    fill: Any = 0.0,
    payoff: Payoff = "log_odds",
    link: Link | None = None,
) -> PixelValueFn:
    """The game whose hidden players' pixels are replaced by `fill`.

    logits_fn: images [C, H, W, channels], of the image's dtype -> [C, K], any pure function; or what it returns has the
               array in it, as `.logits`, as the entry "logits", or as the only one of its shape. Arrays it holds as a
               pytree (a `jax.tree_util.Partial` over parameters, an Equinox or NNX module, `model.logits`) are
               arguments of the compiled search; arrays in a plain closure are constants of it, and every new closure
               compiles anew.
    image:     [H, W, channels] of any number of channels, channels last, as the classifier wants it: float, normalised
               as in its training; for a function that takes integers, of those (a warning tells of the range).
    target:    the class explained: an integer; a name, where `logits_fn` is a Classifier's; None for the class that
               the model answers for the whole image.
    regions:   int[H, W], labels 0 .. P-1.
    fill:      what a hidden pixel becomes, in the image's own (normalised) units: a number, one number a channel, an
               image [H, W, channels], "mean" (the image's mean in each channel) or "blur" (`blur_image`, its default
               width). Of an image of integers, what integers of that kind can hold.
    payoff:    see `payoff_values`.
    link:      what makes probabilities of the model's answers: "softmax", of logits of which one class is true;
               "sigmoid", of the logits of independent labels, of which one leads where its probability is above a
               half, and of a single logit (K = 1) that says yes, class 1, or no, class 0; "probabilities", nothing.
               None means a Classifier's own, and "softmax" for a function.

    Outside `jit` the model is run on a few rows, once for each structure and shape: a model in training mode, whose
    answers depend on chance or on the batch, is refused, and answers that look like probabilities are warned of. So is
    an image outside the range that a Classifier's preprocessing makes.
    Raises ValueError for those, for shapes that disagree, an unknown payoff, link or fill, an image with NaN, and a
    label map with gaps. Inside `jit` nobody can look: what is wrong there gives NaN, as does a target that is no class.
    """
    owner = getattr(logits_fn, "__self__", logits_fn)
    check_not_torch(owner)
    image = check_image(image, owner)
    check_layout(image, regions)
    regions, num_players = check_regions(regions, image.shape[0], image.shape[1])
    v = PixelValueFn(
        logits_fn=pack(logits_fn),
        image=image,
        fill=fill_image(image, fill),
        regions=regions,
        target=check_target(target, owner),
        payoff=check_payoff(payoff),
        link=link_of(owner, link),
        num_players=num_players,
        foreign=not getattr(owner, "in_evaluation", False),
    )
    return _checked(v, seek=target is None)


@deliberate
def token_value_fn(
    model: Any,
    image: Any,
    target: Any,
    regions: Any = None,
    *,
    payoff: Payoff = "log_odds",
    link: Link | None = None,
) -> TokenValueFn:
    """The game whose hidden players' tokens are removed from a vision transformer.

    The image is embedded once, position embedding included; a coalition's encoder then sees the class token and the
    visible tokens only. This is what MoXI calls `vit_embedding`.

    model:   a pytree with `token_grid` (rows, cols), `embed_tokens(image [H, W, 3]) -> tokens` (any pytree of arrays
             [T, ...]) and `encode_tokens(tokens [C, m, ...], present bool[C, m]) -> logits [C, K]`, in which tokens
             that are not present leave no trace; `jaxmoxi.models.load` gives one for ViT, DeiT, DINOv2 and BEiT.
    image:   float[H, W, 3], normalised, of the model's size.
    target:  the class explained, as `pixel_value_fn` takes it.
    regions: None makes every token a player. A label map int[H, W] makes each region a player that owns the tokens it
             covers most of (`token_players`).
    payoff:  see `payoff_values`.
    link:    as for `pixel_value_fn`.

    The model is run and its answers are looked at as by `pixel_value_fn`.
    Raises ValueError for a model without tokens, shapes that disagree, an unknown payoff or link, and as
    `pixel_value_fn`.
    """
    grid = getattr(model, "token_grid", None)
    if grid is None:
        raise InputError(
            "this model has no tokens to remove (it is not a vision transformer); hide pixels with pixel_value_fn"
        )
    image = check_image(image, model)
    if regions is None:
        num_players = grid[0] * grid[1]
        players, tokens_per_player = jnp.arange(num_players, dtype=jnp.int32), 1
    else:
        players, num_players, tokens_per_player = players_of_tokens(regions, image, grid)
    v = TokenValueFn(
        model=model,
        tokens=model.embed_tokens(image),
        players=players,
        target=check_target(target, model),
        payoff=check_payoff(payoff),
        link=link_of(model, link),
        num_players=num_players,
        tokens_per_player=tokens_per_player,
        foreign=not getattr(model, "in_evaluation", False),
        regions=None if regions is None else jnp.asarray(regions, jnp.int32),
    )
    return _checked(v, seek=target is None)


def players_of_tokens(
    regions: Any, image: Num[Array, "H W channels"], grid: tuple[int, int]
) -> tuple[Int[Array, "T"], int | None, int | None]:
    """The player that each token belongs to, their number P, and the tokens of each where all have as many.

    P is None for regions that are traced. Raises InputError for regions that do not fit the image or its tokens.
    """
    rows, cols = grid
    regions, num_players = check_regions(regions, image.shape[0], image.shape[1])
    players = token_players(regions, rows=rows, cols=cols, num_players=num_players or rows * cols)
    if num_players is None:
        players = jnp.where(regions.min() < 0, -1, players)
    if num_players is None or not is_concrete(players):
        return players, num_players, None
    # Only players of one common size bound the tokens by the players: a bound that differed from image to image would
    # be new structure, and compile anew, for each.
    sizes = np.bincount(np.asarray(players), minlength=num_players)
    return players, num_players, int(sizes[0]) if (sizes == sizes[0]).all() else None


def _checked(v: Logits, *, seek: bool) -> Logits:
    """`v`, if its classifier answers [C, K] for rows alone and its target is below K; InputError otherwise.

    seek: explain the class that the model answers for the whole image.
    """
    check_fits(v.payoff, v.link)
    try:
        shape = output_shapes(_one_row, v).shape
    except TypeError as error:
        if not needs_numbers(error):
            raise
        raise no_trace_error(error) from error
    fewest = 1 if v.link == "sigmoid" else 2
    if len(shape) != 2 or shape[0] != 1 or shape[1] < fewest:
        hint = '. A single logit of yes or no has link="sigmoid"' if shape == (1, 1) else ""
        raise InputError(
            "expected a function of images [C, H, W, channels] that returns logits [C, K] of at least "
            f"{'one label' if fewest == 1 else 'two classes'}; got shape {list(shape)} for one image{hint}"
        )
    if seek:
        top = jnp.argmax(as_logits(_compiled_row(v), v.link)[0])
        v = dataclasses.replace(v, target=top.astype(jnp.int32))  # type: ignore[type-var]
    count = max(shape[1], 2)  # one logit tells of two classes, no and yes
    if is_concrete(v.target) and v.target >= count:
        raise InputError(f"expected a target among the {count} classes (0 .. {count - 1}); got {int(v.target)}")
    if v.num_players is not None:
        check_rows(v, v.num_players)
    return v


def _one_row(v: ImageGame) -> Float[Array, "1 K"]:
    return v.logits(jnp.ones((1, v.num_players or 1), bool))


_compiled_row = jax.jit(_one_row)
