"""The rate of this machine's matrix products, and what a vision transformer's forward pass asks of it.

What the command `bench` and the benchmarks measure by; nothing here needs the packages of a command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks.base import sides
from jaxmoxi.models.networks.registry import family_of
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.models.preprocess import Preprocessing

SIZES = {
    "tiny": VisionTransformerConfig(hidden_size=192, num_layers=12, num_heads=3, mlp_dim=768),
    "small": VisionTransformerConfig(hidden_size=384, num_layers=12, num_heads=6, mlp_dim=1536),
    "base": VisionTransformerConfig(hidden_size=768, num_layers=12, num_heads=12, mlp_dim=3072),
}


def random_classifier(config: Any) -> Classifier:
    """A classifier of this shape, of any family, with random weights, which is as fast as a trained one."""
    network = family_of(config).network
    # One program, where without `jit` each array would be one.
    state = jax.jit(lambda: nnx.state(network(config, rngs=nnx.Rngs(0)), (nnx.Param, nnx.BatchStat)))()
    names = tuple(f"class {i}" for i in range(config.num_classes))
    return Classifier(state, config, Preprocessing(resize=sides(config.image_size)), names, f"random {config}")


def forward_flops(config: VisionTransformerConfig, num_tokens: int) -> int:
    """The floating-point operations of one coalition, 2 for each multiply-add.

    Matrix products alone count, without those computed once for an image, and of the last layer the class token alone.

    num_tokens: visible tokens, class token included.
    """
    width, mlp, layers = config.hidden_size, config.mlp_dim, config.num_layers
    project, finish = 3 * width * width, width * width + 2 * width * mlp
    attend = 2 * num_tokens * width
    full = (layers - 1) * num_tokens * (attend + finish) + (layers - 2) * num_tokens * project
    read = 3 * width * width + 2 * config.num_heads * num_tokens * width + finish
    return 2 * (full + read + width * config.num_classes)


def matmul_rate(dtype: Any, *, size: int | None = None, repeats: int = 7, mesh: Mesh | None = None) -> float:
    """Floating-point operations per second of large square matrix products: the best of `repeats` runs.

    mesh: computes one product on each of its devices at the same time; None for one device.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a, b = jax.random.normal(jax.random.key(0), (2, size, size)).astype(dtype)
    count = 1 if mesh is None else mesh.size
    if mesh is not None:
        a = jax.device_put(jnp.tile(a, (count, 1)), NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
        b = jax.device_put(b, NamedSharding(mesh, PartitionSpec()))
    times = timed(jax.jit(jnp.matmul), (a, b), repeats)
    return 2 * count * size**3 / min(times)


def timed(run: Callable[..., Any], args: tuple[Any, ...], repeats: int) -> list[float]:
    """Seconds of each run, after a warm-up run that is not timed."""
    jax.block_until_ready(run(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - start)
    return times
