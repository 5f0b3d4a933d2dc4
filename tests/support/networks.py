"""Weights and images that need no file: made from a tensor's name and shape, the same wherever they are made."""

from __future__ import annotations

import zlib

import numpy as np

# Tensors that scale what passes through them, besides the one-dimensional weights of norms.
_SCALES = ("gamma", "lambda", "layer_scale", "layerscale", "running_var")


def made_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor that is like a trained one: float32, and of a variance that keeps what passes through it of its size."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if any(word in name for word in _SCALES):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    noise = rng.normal(size=shape)
    if len(shape) == 1:
        return (0.1 * noise + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)
    if not name.endswith("weight"):  # tokens, position embeddings, tables of biases
        return (0.5 * noise).astype(np.float32)
    return (noise / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)


def made_tensors(shapes: dict[str, tuple[int, ...]], variance: float = 1.0) -> dict[str, np.ndarray]:
    """`made_tensor` of every name; the running variances of BatchNorm lie around `variance`."""
    made = {name: made_tensor(name, tuple(shape)) for name, shape in shapes.items()}
    return {n: t * np.float32(variance) if n.endswith("running_var") else t for n, t in made.items()}


def made_images(size: tuple[int, int], channels: int = 3, count: int = 2) -> np.ndarray:
    """Normalised images, float32[count, H, W, C]."""
    return np.random.default_rng(0).normal(size=(count, *size, channels)).astype(np.float32)
