"""Runs searches to their end: one compiled loop, one question of every search an iteration.

A `vmap` around a search does not run a loop for each image with every branch of every step. It has a rule of its own
(`jax.custom_batching`): the searches of all images advance in one loop, whose chunks they share (`reading`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.search.asking import Reader
from jaxmoxi.search.device.memory import look_up, make_room, new_memory, pack_groups, remember
from jaxmoxi.search.device.reading import Answer, Games, answer, evaluate, sizes_of


class Question(NamedTuple):
    """Groups that a search asks about, of one size: a base, each with up to two players toggled.

    base:    bool[P].
    toggled: int32[K, 2], -1 toggles nobody.
    asked:   bool[K], which of the K rows there are; each group at most once.
    bounded: bool[], whether the budget holds; a question past it is not answered.
    """

    base: Bool[Array, "*B P"]
    toggled: Int[Array, "*B K 2"]
    asked: Bool[Array, "*B K"]
    bounded: Bool[Array, "*B"]


class Machine(Protocol):
    """A search of one image as a machine. Hashable: static under `jit`. Everything is traced under `vmap`.

    num_players, insertion: of the search.
    rows: K, how many groups a question may have.
    slopes: whether `propose` looks at gradients.
    """

    num_players: int
    insertion: bool

    @property
    def rows(self) -> int: ...
    @property
    def slopes(self) -> bool: ...
    def start(self, given: Any) -> Any:
        """The first state, of what the search was given."""
        ...

    def ended(self, state: Any) -> Bool[Array, ""]:
        """Whether there is nothing left to ask."""
        ...

    def sloped(self, state: Any) -> tuple[Bool[Array, ""], Bool[Array, "P"]]:
        """(whether the next question needs the gradient, at which group)."""
        ...

    def propose(self, state: Any, slope: Float[Array, "P"]) -> tuple[Any, Question]:
        """(the state, what is asked next); nothing, once the search has ended."""
        ...

    def digest(self, state: Any, question: Question, answer: Answer, spent: Bool[Array, ""], count: Any) -> Any:
        """The state after the answer; `spent`: there is none, because the budget does not reach. count: evaluations."""
        ...

    def outcome(self, state: Any) -> Any:
        """What the search found."""
        ...


class Plan(NamedTuple):
    """What of a search is static under `jit`.

    capacity: how many groups a search remembers.
    """

    machine: Any
    reader: Reader
    batch_size: int | None
    capacity: int


class Ended(NamedTuple):
    """Where a search ended.

    outcome:     what the machine found.
    evaluations: int32[], forward passes.
    broken:      bool[], a value was NaN.
    culprit:     bool[P], the group whose value it was.
    """

    outcome: Any
    evaluations: Int[Array, "*B"]
    broken: Bool[Array, "*B"]
    culprit: Bool[Array, "*B P"]


class Given(NamedTuple):
    """What a search starts from. limit: int32[], the budget. more: what its machine needs."""

    limit: Int[Array, "*B"]
    more: Any = None


def search_one(plan: Plan, asked: Any, given: Given) -> Ended:
    """One search. Traceable, with a rule of its own under `vmap`. asked: (game, goal)."""
    leaves, treedef = jax.tree.flatten(asked)
    ends = _together(plan, treedef, (False,) * len(leaves), 1)(leaves, jax.tree.map(lambda x: x[None], given))
    return jax.tree.map(lambda x: x[0], ends)


def _together(plan: Plan, treedef: Any, is_own: tuple[bool, ...], count: int) -> Any:
    """`run_searches` of so many games, whose own `vmap` makes it a run of more of them."""

    @custom_vmap
    def run(leaves: list[Array], given: Given) -> Ended:
        return run_searches(plan, Games(leaves, is_own, treedef, count), given)

    def joined(x: Array, batched: bool, own: bool, size: int) -> Array:
        x = x if batched else jnp.broadcast_to(x, (size, *x.shape))
        x = x if own else jnp.repeat(x[:, None], count, axis=1)
        return x.reshape(size * count, *x.shape[2:])

    @run.def_vmap
    def rule(size: int, batched: Any, leaves: list[Array], given: Given) -> Any:
        leaves_batched, given_batched = batched
        owns = tuple(own or new for own, new in zip(is_own, leaves_batched, strict=True))
        more = [
            joined(x, new, own, size) if new or own else x
            for x, new, own in zip(leaves, leaves_batched, is_own, strict=True)
        ]
        every = jax.tree.map(lambda x, new: joined(x, new, True, size), given, given_batched)
        ends = _together(plan, treedef, owns, size * count)(more, every)
        ends = jax.tree.map(lambda x: x.reshape(size, count, *x.shape[1:]), ends)
        return ends, jax.tree.map(lambda _: True, ends)

    return run


def run_searches(plan: Plan, games: Games, given: Given) -> Ended:
    """B searches together; what they start from leads with [B], and so does what they end with."""
    machine, count = plan.machine, games.count
    num_players, insertion = machine.num_players, machine.insertion
    sample, goal = games.of(0)
    sizes = sizes_of(sample, num_players, count, plan.batch_size)
    blank = jax.eval_shape(
        lambda: answer(plan.reader, sample, goal, jnp.ones((1, num_players), bool), sizes[-1].max_visible, insertion)
    )
    memory = new_memory(count, max(plan.capacity, machine.rows), num_players, blank)
    states = jax.vmap(machine.start)(given.more) if given.more is not None else _start(machine, count)
    search = jnp.arange(count)[:, None]

    def advance(carry: Any) -> Any:
        states, memory, counts, broken, culprit = carry
        slopes = jnp.zeros((count, num_players))
        if machine.slopes:
            wanted, groups = jax.vmap(machine.sloped)(states)
            slopes = _slopes(games, wanted, groups, insertion)
        states, question = jax.vmap(machine.propose)(states, slopes)
        asked = question.asked & ~broken[:, None]
        memory = make_room(memory, jnp.sum(asked, axis=1, dtype=jnp.int32))
        keys = pack_groups(question.base, question.toggled)
        places = look_up(memory, keys, asked)
        new = asked & (places.rows < 0)
        coming = jnp.sum(new, axis=1, dtype=jnp.int32)
        spent = question.bounded & (counts + coming > given.limit)
        new = new & ~spent[:, None]
        memory, places = remember(memory, keys, new, places)
        answers = evaluate(
            games, plan.reader, sizes, insertion, question.base, question.toggled, new, places.rows, memory.answers
        )
        counts = counts + jnp.where(spent, 0, coming)
        told = jax.tree.map(lambda x: x[search, jnp.maximum(places.rows, 0)], answers)
        wrong = new & jnp.isnan(told.score)
        culprit = jnp.where(jnp.any(wrong, axis=1)[:, None], _group(question, jnp.argmax(wrong, axis=1)), culprit)
        broken = broken | jnp.any(wrong, axis=1)
        states = jax.vmap(machine.digest)(states, question._replace(asked=asked), told, spent, counts)
        return states, memory._replace(answers=answers), counts, broken, culprit

    def going(carry: Any) -> Bool[Array, ""]:
        return jnp.any(~jax.vmap(machine.ended)(carry[0]) & ~carry[3])

    blank_counts = jnp.zeros(count, jnp.int32)
    nobody = jnp.zeros((count, num_players), bool)
    states, _, counts, broken, culprit = jax.lax.while_loop(
        going, advance, (states, memory, blank_counts, jnp.zeros(count, bool), nobody)
    )
    return Ended(jax.vmap(machine.outcome)(states), counts, broken, culprit)


def _start(machine: Any, count: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), machine.start(None))


def _group(question: Question, row: Int[Array, "B"]) -> Bool[Array, "B P"]:
    """One of the groups that each search asks about."""
    toggled = jnp.take_along_axis(question.toggled, row[:, None, None], axis=1)[:, 0]
    return question.base ^ jnp.any(toggled[:, :, None] == jnp.arange(question.base.shape[1]), axis=1)


def _slopes(games: Games, wanted: Bool[Array, "B"], groups: Bool[Array, "B P"], insertion: bool) -> Float[Array, "B P"]:
    """The gradient of every search's payoff in its players' gates, at its group; zeros where none is wanted."""

    def slope(game: Any, _: Any, masks: Bool[Array, "1 P"]) -> Float[Array, "1 P"]:
        return jax.grad(lambda gates: game.relaxed(gates)[0])(masks.astype(jnp.float32))

    def every(masks: Bool[Array, "B P"]) -> Float[Array, "B P"]:
        if games.count == 1:
            return slope(*games.of(0), masks)
        return games.row_by_row(slope, masks, jnp.arange(games.count))

    masks = groups if insertion else ~groups
    return jax.lax.cond(jnp.any(wanted), every, lambda masks: jnp.zeros(masks.shape), masks)
