"""The public entry points as programs for one chip, or for the four of a host. See `aot`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _aot import Program, on, shapes
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxmoxi as jm
import jaxmoxi.models.networks.resnet  # registers itself
from jaxmoxi.cli.rates import forward_flops, random_classifier
from jaxmoxi.games.base import Game, as_game, read
from jaxmoxi.games.evaluation import choose_batch_size
from jaxmoxi.games.sharding import ShardedValueFn
from jaxmoxi.models.networks.resnet_config import ResNetConfig
from jaxmoxi.models.networks.vit_config import VisionTransformerConfig
from jaxmoxi.moxi import batched
from jaxmoxi.moxi.greedy import greedy_init, run_stage
from jaxmoxi.moxi.stages import Stage, choose_chunk, plan_stages
from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.inference.batches import classify_kept
from jaxmoxi.p2p.inference.predict import _select, threshold_grid
from jaxmoxi.p2p.training.step import init_state, train_step
from jaxmoxi.regions.slic import slic

TINY = VisionTransformerConfig(hidden_size=192, num_heads=3, mlp_dim=768)
BASE = VisionTransformerConfig()
PLAYERS = 196

Entry = Callable[[list[Any]], Iterator[Program]]


def tokens_game(config: VisionTransformerConfig, form: Any = None) -> Game:
    model = random_classifier(dataclasses.replace(config, attention=form)).astype("bfloat16")
    return as_game(jm.token_value_fn(model, np.zeros((224, 224, 3), np.float32), 0))


def read_program(name: str, game: Game, device: Any, rows: int, visible: int | None, per_row: float | None) -> Program:
    """One chunk of coalitions."""
    operands = shapes((game, np.zeros((rows, PLAYERS), bool)), on(device))
    lower = jax.jit(partial(_read, visible)).lower
    return Program(name, partial(lower, *operands), None if per_row is None else rows * per_row)


def _read(visible: int | None, game: Game, masks: Any) -> Any:
    return read(game, masks, visible)


def forwards(devices: list[Any]) -> Iterator[Program]:
    """Coalitions of a vision transformer by tokens, and the forms of attention beside one another."""
    for name, config, sizes in (("DeiT-Tiny", TINY, (32, 104, 196)), ("ViT-B/16", BASE, (32, 196))):
        game = tokens_game(config)
        for visible in sizes:
            rows = choose_batch_size(game, PLAYERS, max_visible=visible)
            flops = forward_flops(config, visible + 1)
            label = f"forward, {name}, {visible + 1} tokens, {rows} rows"
            yield read_program(label, game, devices[0], rows, visible, flops)
        for form in ("batched", "heads"):
            rows, flops = (256 if config is TINY else 64), forward_flops(config, 197)
            label = f"forward, {name}, 197 tokens, {rows} rows, attention {form}"
            yield read_program(label, tokens_game(config, form), devices[0], rows, 196, flops)


def sharded(devices: list[Any]) -> Iterator[Program]:
    """A chunk of coalitions shared by four chips."""
    mesh = Mesh(np.array(devices), ("coalitions",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    game = shapes(tokens_game(TINY), everywhere)
    spread = ShardedValueFn(v=game, mesh=mesh, axes=("coalitions",))
    rows = 4 * choose_batch_size(tokens_game(TINY), PLAYERS, max_visible=196)
    masks = jax.ShapeDtypeStruct((rows, PLAYERS), bool, sharding=everywhere)
    yield Program(
        f"forward, DeiT-Tiny, 197 tokens, {rows} rows on four chips",
        lambda: jax.jit(partial(_read, 196)).lower(spread, masks),
        rows * forward_flops(TINY, 197) / 4,
        note="of a chip; the collectives gather the values, behind the forward",
    )


def search(devices: list[Any], *, insertion: bool) -> Iterator[Program]:
    """The stages of a full order of DeiT-Tiny."""
    game = tokens_game(TINY)
    state = greedy_init(game, PLAYERS, insertion=insertion)
    name = "insertion" if insertion else "deletion"
    starts = 0
    for stage in plan_stages(PLAYERS, insertion=insertion):
        steps = stage.steps - starts
        chunks, flops = _work(game, stage, starts)
        operands = shapes((game, state, jm.Stop().as_arrays(), jnp.int32(0)), on(devices[0]))
        yield Program(
            f"{name}, DeiT-Tiny, players {starts + 1} to {stage.steps}, {stage.max_visible} visible",
            partial(run_stage.lower, *operands, None, stage),
            flops,
            (steps, chunks / steps),
        )
        starts = stage.steps


def _work(game: Game, stage: Stage, starts: int, images: int = 1, batch_size: int | None = None) -> tuple[int, float]:
    """(chunks, FLOP without padding) of a stage's steps."""
    fewest, most = max(1, PLAYERS - stage.steps + 1), min(stage.max_candidates, PLAYERS)
    size = choose_chunk(game, PLAYERS, range(fewest, most + 1), batch_size, stage.max_visible)
    counts = [PLAYERS - k for k in range(starts, stage.steps)]
    tokens = (stage.max_visible or PLAYERS) + 1
    return sum(math.ceil(c / size) for c in counts), images * sum(counts) * forward_flops(TINY, tokens)


def together(devices: list[Any]) -> Iterator[Program]:
    """Stages of an insertion of 64 images together."""
    images = 64
    game = tokens_game(TINY)
    shared, own, merge = batched.split_games([game, tokens_game_like(game)])
    state = greedy_init(game, PLAYERS, insertion=True)
    place = on(devices[0])
    shared = shapes(shared, place)
    own = [jax.ShapeDtypeStruct((images, *x.shape[1:]), x.dtype, sharding=place) for x in own]
    states = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((images, *jnp.shape(x)), jnp.result_type(x), sharding=place), state
    )
    limits, goal = shapes((jm.Stop().as_arrays(), jnp.int32(0)), place)
    starts = 0
    for stage in plan_stages(PLAYERS, insertion=True):
        fits = choose_batch_size(game, PLAYERS, max_visible=stage.max_visible)
        chunks, flops = _work(game, stage, starts, images, max(1, fits // images))
        steps = stage.steps - starts
        yield Program(
            f"greedy_images, 64 x DeiT-Tiny, players {starts + 1} to {stage.steps}, {stage.max_visible} visible",
            partial(batched._run_images.lower, shared, own, merge, states, limits, goal, None, stage, None),
            flops,
            (steps, chunks / steps),
        )
        starts = stage.steps


def tokens_game_like(game: Any) -> Game:
    """The same game of another image: its weights are the same arrays, its tokens others."""
    return dataclasses.replace(game, tokens=jax.tree.map(lambda x: x + 1, game.tokens), target=game.target + 1)


def pixels(devices: list[Any]) -> Iterator[Program]:
    """A CNN whose hidden pixels are filled: a chunk, and the one stage of an insertion."""
    model = random_classifier(ResNetConfig(
        depths=(2, 2, 2, 2), widths=(64, 128, 256, 512), inner=(64, 128, 256, 512), image_size=224
    )).astype("bfloat16")  # fmt: skip
    regions = jm.grid_regions(224, 224, rows=14, cols=14)
    game = as_game(jm.pixel_value_fn(model.logits, np.zeros((224, 224, 3), np.float32), 0, regions))
    rows = choose_batch_size(game, PLAYERS)
    yield read_program(f"forward, ResNet-18, hidden pixels, {rows} rows", game, devices[0], rows, None, 3.63e9)
    (stage,) = plan_stages(PLAYERS, insertion=True, sized=False)
    state = greedy_init(game, PLAYERS, insertion=True)
    operands = shapes((game, state, jm.Stop().as_arrays(), jnp.int32(0)), on(devices[0]))
    size = choose_chunk(game, PLAYERS, range(1, PLAYERS + 1), None, None)
    chunks = sum(math.ceil(c / size) for c in range(1, PLAYERS + 1))
    yield Program(
        "insertion, ResNet-18, hidden pixels, all 196 players",
        partial(run_stage.lower, *operands, None, stage),
        PLAYERS * (PLAYERS + 1) / 2 * 3.63e9,
        (PLAYERS, chunks / PLAYERS),
    )


def pairs(devices: list[Any]) -> Iterator[Program]:
    """All self-context pairs of 196 players, two visible at most."""
    game = tokens_game(TINY)
    run = jax.jit(lambda game: jm.pairwise_interactions(game, PLAYERS))
    count = PLAYERS * (PLAYERS - 1) // 2 + PLAYERS + 1
    yield Program(
        "pairwise_interactions, DeiT-Tiny, 196 players",
        partial(run.lower, shapes(game, on(devices[0]))),
        count * forward_flops(TINY, 3),
    )


def superpixels(devices: list[Any]) -> Iterator[Program]:
    """Superpixels of 64 images."""
    run = jax.jit(partial(slic, num_segments=196, num_iterations=10, enforce_connectivity=True))
    images, compactness = (
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=on(devices[0])) for shape in ((64, 224, 224, 3), ())
    )
    yield Program("slic, 64 images of 224 x 224, 196 superpixels", partial(run.lower, images, compactness))


P2P_IMAGES = 64


def _p2p_batch(config: jm.p2p.Config, place: Any) -> Batch:
    count, size = P2P_IMAGES, config.image_size
    images, regions = np.zeros((count, size, size, 3), np.uint8), np.zeros((count, size, size), np.int32)
    return shapes(Batch(images, regions, np.zeros(count, np.int32)), place)


def p2p_predict(devices: list[Any]) -> Iterator[Program]:
    """Both halves of P2P's prediction, at 224 pixels and a batch of 64."""
    config, place = jm.p2p.Config(num_classes=10), on(devices[0])
    model = shapes(jm.p2p.init(jax.random.key(0), config), place)
    batch, taus = _p2p_batch(config, place), shapes(threshold_grid(config), place)
    yield Program(
        f"p2p predict, selector, {P2P_IMAGES} images", partial(_select.lower, model, batch.images, batch.regions, taus)
    )
    groups = jax.ShapeDtypeStruct((P2P_IMAGES, config.num_groups), bool, sharding=place)
    yield Program(
        f"p2p predict, classifier, {P2P_IMAGES} images",
        partial(classify_kept.lower, model, batch.images, groups, batch.regions),
    )


def p2p_train(devices: list[Any]) -> Iterator[Program]:
    """A step of P2P's training, at 224 pixels and a batch of 64."""
    config, place = jm.p2p.Config(num_classes=10), on(devices[0])
    optimizer = optax.adamw(1e-3)
    state = shapes(init_state(jm.p2p.init(jax.random.key(0), config), optimizer), place)
    step = partial(train_step, objective=jm.p2p.TrainConfig(), optimizer=optimizer, steps_per_epoch=100)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=place)
    lower = jax.jit(step, donate_argnums=0).lower
    yield Program(f"p2p train_step, {P2P_IMAGES} images of 224", partial(lower, state, _p2p_batch(config, place), key))


def searches(devices: list[Any]) -> Iterator[Program]:
    """The smallest group of DeiT-Tiny, and the best of every size up to 16, each as one program."""
    game = tokens_game(TINY)
    run = jax.jit(lambda game: jm.search.minimal_group(game, PLAYERS, budget=1000))
    yield Program(
        "minimal_group, DeiT-Tiny, 196 players",
        partial(run.lower, shapes(game, on(devices[0]))),
        note="one round of its loop: it decides by itself how many",
    )
    beam = jax.jit(lambda game: jm.search.beam_search(game, PLAYERS, max_size=16))
    yield Program(
        "beam_search, 8 wide, DeiT-Tiny, 196 players",
        partial(beam.lower, shapes(game, on(devices[0]))),
        note="one round of its loop: it decides by itself how many",
    )


ENTRIES: dict[str, Entry] = {
    "forward": forwards,
    "sharded": sharded,
    "insertion": partial(search, insertion=True),
    "deletion": partial(search, insertion=False),
    "greedy_images": together,
    "pixels": pixels,
    "pairs": pairs,
    "slic": superpixels,
    "p2p_predict": p2p_predict,
    "p2p_train": p2p_train,
    "searches": searches,
}
