"""How fast are P2P's training step and its dynamic-threshold prediction, beside PyTorch?

    python benchmarks/p2p.py [--out FILE.json]

Needs PyTorch beside the package. Full size: LR-ASPP on MobileNetV3-Large and ViT-Tiny, 224 x 224 pixels, 100
superpixels, 8 images. The peer (`torch_p2p`) has the same weights and does what the published code does. Both take
turns, on all cores of the CPU (ours by `jaxmoxi.local_mesh`). Ours is timed without its compilation, which is given
apart. What is reported:

    networks    how far the selector's map and the classifier's logits are from the peer's, on the same weights
    training    a step: sampling, both networks forward and backward, Adam
    never       a prediction at a certainty that no image reaches: all thresholds up to 1
    mixed       a prediction at the certainty at which the images stop nearest to 0.25 on average; models trained as
                published keep about that share of an image at a certainty of 0.99

The weights are random, but for the last layers, which behave as a trained model's. The selector's head is scaled so
that the groups kept grow from a few to almost all as the threshold goes from 0.05 to 1; otherwise most thresholds would
keep the same groups, and ours would skip them. The classifier grows certain of one class with what it sees; otherwise
each image would stop at once or never.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from _common import environment, seconds, summary, write

import jaxmoxi as jm
from jaxmoxi import p2p
from jaxmoxi.models.networks import lraspp, vit
from jaxmoxi.p2p.distribution import over_pixels
from jaxmoxi.p2p.model import fill_colour
from jaxmoxi.p2p.placement import placement

SELECTOR, CLASSIFIER = "selector.importance_predictor.model.", "classifier.model."


@dataclasses.dataclass
class Args:
    batch_size: int = 8
    """Images of a step or a prediction."""
    rounds: int = 5
    """In each, both sides predict once, and later take five training steps."""
    one_device: bool = False
    """Ours on one device alone."""
    out: Path | None = None


def random_tensors(config: p2p.Config) -> dict[str, np.ndarray]:
    """A state dict in the published names. Products keep the size of their inputs; BatchNorm starts fresh."""
    assert isinstance(config.classifier, p2p.ViTConfig)
    full = config.classifier.full(config.image_size, config.num_classes)
    shapes = {SELECTOR + name: shape for name, shape in lraspp.expected_tensors(config.channels).items()}
    shapes |= {CLASSIFIER + name: shape for name, shape in vit.expected_tensors(full, "vit").items()}
    tensors = {}
    for name, shape in shapes.items():
        z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if name.endswith(("bias", "running_mean")):
            z *= 0
        elif name.endswith(("cls_token", "position_embeddings")):
            z *= 0.5
        elif len(shape) == 1:
            z = np.ones_like(z)
        else:
            gain = 2.0 if name.startswith(SELECTOR) and ".fc" not in name else 1.0
            z *= (gain / np.prod(shape[1:])) ** 0.5
        tensors[name] = z
    return tensors


def with_spread_thresholds(tensors: dict[str, np.ndarray], config: p2p.Config, batch: Any) -> dict[str, np.ndarray]:
    """The same weights with groups' logits of mean -2 and deviation 1 at threshold 0, and 4 more at threshold 1.

    One channel that the head reads is switched off, so what it weighs there meets the threshold alone.
    """
    import jax

    tensors = dict(tensors)
    head = f"{SELECTOR}classifier.{{}}_classifier.{{}}".format
    silent = f"{SELECTOR}classifier.cbr.1.bias"
    tensors[silent] = np.where(np.arange(len(tensors[silent])) == 0, np.float32(-100), tensors[silent])
    model = p2p.from_torch(tensors, config)
    logits = jax.jit(lambda m, x, r: m.group_logits(m.normalize(x), r, np.zeros(1, np.float32))[0])
    mu = np.asarray(logits(model, batch.images, batch.regions))
    mu = mu[0][np.array([np.isin(np.arange(config.num_groups), r) for r in batch.regions])]
    for name in (head("low", "weight"), head("high", "weight")):
        tensors[name] = tensors[name].copy()
        tensors[name][0] /= mu.std()
    rest = tensors[head("low", "weight")][0].sum() + tensors[head("high", "weight")][0, 1:].sum()
    tensors[head("high", "weight")][0, 0] = 4 - rest
    tensors[head("high", "bias")] = np.where(np.arange(config.channels) == 0, -2 - mu.mean() / mu.std(), 0.0)
    tensors[head("high", "bias")] = tensors[head("high", "bias")].astype(np.float32)
    return tensors


def with_growing_certainty(tensors: dict[str, np.ndarray], config: p2p.Config, batch: Any) -> dict[str, np.ndarray]:
    """The same weights with a first class whose logit is 0 at threshold 0.05 and 6 at 0.4, on average.

    Its weights are the difference of the classifier's mean features there. All other logits are 0.
    """
    import jax

    @jax.jit
    def mean_features(model: Any, images: Any, regions: Any, taus: Any) -> Any:
        images = model.normalize(images)
        logits, shares, _ = model.group_logits(images, regions, taus)

        def total(classifier: Any, groups: Any) -> Any:  # its gradient by a class's weights is the mean of the features
            part = p2p.P2P(model.selector, classifier, config)
            seen = jax.numpy.where(over_pixels(groups, regions)[..., None], images, fill_colour(config))
            return part.modules()[1](seen)[:, 0].mean()

        return [jax.grad(total)(model.classifier, g)["head"]["kernel"][:, 0] for g in model.keep(logits, shares, taus)]

    model, taus = p2p.from_torch(tensors, config), np.array([0.05, 0.4], np.float32)
    little, more = map(np.asarray, mean_features(model, batch.images, batch.regions, taus))
    grows = 6 * (more - little) / ((more - little) @ (more - little))
    tensors = dict(tensors)
    for name, first in (("weight", grows), ("bias", -grows @ little)):
        tensors[f"{CLASSIFIER}classifier.{name}"] = np.zeros_like(tensors[f"{CLASSIFIER}classifier.{name}"])
        tensors[f"{CLASSIFIER}classifier.{name}"][0] = first
    return tensors


def in_turn(ours: Any, peer: Any, repeats: int, *, rounds: int = 1) -> dict[str, Any]:
    """Seconds of `repeats` runs of the one, then of the other, `rounds` times: a noisy machine is noisy for both."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        times["ours"] += seconds(ours, repeats=repeats)
        times["peer"] += seconds(peer, repeats=repeats)
    row: dict[str, Any] = {name: summary(t) for name, t in times.items()}
    row["times faster"] = row["peer"]["median"] / row["ours"]["median"]
    return row


def networks(model: Any, twin: Any, images: Any, pixels: Any) -> dict[str, float]:
    """The largest differences between both implementations, as a share of the largest number."""
    import jax
    import torch

    importance = jax.jit(lambda m, x: m.importance(m.normalize(x)))(model, images)
    logits = jax.jit(lambda m, x: m.modules()[1](m.normalize(x)))(model, images)
    with torch.no_grad():
        theirs = twin.importance(*twin.features(pixels), pixels.shape[-2:]).permute(0, 2, 3, 1).numpy()
        their_logits = twin.classify(pixels).numpy()
    return {
        name: float(np.abs(np.asarray(ours) - peer).max() / np.abs(peer).max())
        for name, ours, peer in (("selector", importance, theirs), ("classifier", logits, their_logits))
    }


def prediction(
    model: Any, twin: Any, batch: Any, pixels: Any, regions: Any, certainty: float, mesh: Any, rounds: int
) -> dict[str, Any]:
    """Both predictions of a batch: seconds, work, and whether they agree."""
    settings: Any = dict(certainty=certainty, batch_size=len(pixels), mesh=mesh)
    ours = p2p.predict(model, batch.images, batch.regions, **settings)
    peer = twin.predict(pixels, regions, certainty=certainty)
    same = np.abs(np.asarray(ours.threshold) - peer.threshold.numpy()) < 1e-3
    row = in_turn(
        lambda: p2p.predict(model, batch.images, batch.regions, **settings).logits,
        lambda: twin.predict(pixels, regions, certainty=certainty),
        repeats=1,
        rounds=rounds,
    )
    return {
        "certainty": certainty,
        "thresholds": np.asarray(ours.threshold).round(2).tolist(),
        **row,
        "images through the classifier": {
            "ours": int(ours.num_evaluations.sum()),
            "peer": peer.classifier_runs * len(pixels),
        },
        "images through the selector": {"ours": len(pixels), "peer": peer.selector_runs * len(pixels)},
        "same threshold": float(same.mean()),
        "largest logit difference": float(np.abs(np.asarray(ours.logits) - peer.logits.numpy())[same].max()),
    }


def training(model: Any, twin: Any, batch: Any, pixels: Any, regions: Any, mesh: Any, rounds: int) -> dict[str, Any]:
    """A step of both."""
    import jax
    import optax
    import torch

    from jaxmoxi.p2p.training.step import init_state, train_step

    optimizer, place = optax.adam(1e-4), placement(mesh, len(pixels))
    state = place.everywhere(init_state(jax.tree.map(jax.numpy.copy, model), optimizer))
    batch = place.split(batch)

    @jax.jit(donate_argnums=0)
    def step(state: Any, batch: Any) -> Any:
        return train_step(
            state, batch, jax.random.key(0), objective=p2p.TrainConfig(), optimizer=optimizer, steps_per_epoch=100
        )

    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    labels = torch.from_numpy(np.array(batch.labels, np.int64))
    losses: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        losses["ours"].append(float(metrics.loss))
        return state

    def peer() -> None:
        losses["peer"].append(float(twin.train_step(pixels, regions, labels).total.detach()))

    ours()
    peer()
    row = in_turn(ours, peer, repeats=5, rounds=rounds)
    memory = compiled.memory_analysis()
    return {
        **row,
        "ours, compilation": compile_seconds,
        "ours, temporary bytes of a device": None if memory is None else memory.temp_size_in_bytes,
        "mean loss": {name: float(np.mean(x)) for name, x in losses.items()},
    }


def main(args: Args) -> int:
    import jax
    import torch

    mesh = None if args.one_device else jm.local_mesh()
    from torch_p2p import TorchP2P

    config = p2p.Config(num_classes=10)
    source = p2p.data.scene_source(jax.random.key(0), args.batch_size, image_size=config.image_size)
    sizes: Any = dict(image_size=config.image_size, num_groups=config.num_groups, batch_size=args.batch_size)
    batch = p2p.data.Loader(source, augment=False, **sizes).batch(0)._replace(masks=None)
    tensors = with_spread_thresholds(random_tensors(config), config, batch)
    tensors = with_growing_certainty(tensors, config, batch)
    model = placement(mesh, args.batch_size).everywhere(p2p.from_torch(tensors, config))
    mean, std = (np.array(x, np.float32) for x in (config.mean, config.std))
    assert isinstance(config.classifier, p2p.ViTConfig)
    twin = TorchP2P(
        tensors, num_heads=config.classifier.num_heads, num_groups=config.num_groups, fill=(config.fill - mean) / std
    )
    pixels = torch.from_numpy((np.float32(batch.images) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
    regions = torch.from_numpy(np.array(batch.regions, np.int64))

    result: dict[str, Any] = {
        "question": "seconds per training step and per dynamic-threshold prediction",
        "images": args.batch_size,
        "superpixels": [int(r.max()) + 1 for r in batch.regions],
        "environment": environment(),
        "peer": f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads",
        "devices used": 1 if mesh is None else mesh.size,
        "networks": networks(model, twin, batch.images, pixels),
    }
    print(result["networks"], file=sys.stderr, flush=True)
    levels = 0.1 + 0.89 * np.linspace(0, 1, 90) ** 2  # closest together where a class begins to lead
    settings: Any = dict(certainty=levels.tolist(), batch_size=args.batch_size, mesh=mesh)
    found = p2p.predict(model, batch.images, batch.regions, **settings).threshold.mean(1)
    mixed = float(levels[np.argmin(np.abs(np.asarray(found) - 0.25))])
    for name, certainty in (("never", 1.0), ("mixed", mixed)):
        result[name] = prediction(model, twin, batch, pixels, regions, certainty, mesh, args.rounds)
        print(f"{name}: {result[name]}", file=sys.stderr, flush=True)
    result["training"] = training(model, twin, batch, pixels, regions, mesh, args.rounds)
    print(f"training: {result['training']}", file=sys.stderr, flush=True)
    write(result, args.out)
    return 0 if result["never"]["same threshold"] == 1 else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
