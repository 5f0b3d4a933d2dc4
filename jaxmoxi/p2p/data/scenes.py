"""Synthetic scenes with a known object, so that everything runs and can be judged without a download.

Each image shows one object on a textured background, among distractors that have its colours but not its shape. The
shape is the class; position, size, angle and colours are independent of it. Nested lines on the object repeat its
outline, so the object's pixels give the class more clearly than the hole that hiding the object leaves.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import record

CLASSES = ("disc", "square", "triangle", "cross", "ring", "star")


@record
class Scenes:
    """Labelled scenes.

    images: uint8[N, S, S, 3]. labels: int32[N], into `CLASSES`. objects: bool[N, S, S], the object's pixels.
    """

    images: UInt8[Array, "*N S S 3"]
    labels: Int[Array, "*N"]
    objects: Bool[Array, "*N S S"]


def synthetic_scenes(
    key: Key[Array, ""], count: int, *, image_size: int = 64, num_classes: int = 6, num_distractors: int = 4
) -> Scenes:
    """Draws `count` scenes; the same key gives the same scenes.

    image_size:      pixels of a side, at least 16. An object covers 12 to 23 % of the image.
    num_classes:     the first of `CLASSES`, at least 2.
    num_distractors: bars and blobs per image, painted before the object.
    Raises ValueError for impossible numbers.
    """
    if count < 1 or image_size < 16 or not 2 <= num_classes <= len(CLASSES) or num_distractors < 0:
        raise InputError(
            f"expected count >= 1, image_size >= 16, num_classes in 2 .. {len(CLASSES)}, num_distractors >= 0; got "
            f"{count}, {image_size}, {num_classes}, {num_distractors}"
        )
    keys = jax.random.split(key, -(-count // 64) * 64)
    parts = [
        _some_scenes(keys[i : i + 64], image_size=image_size, num_classes=num_classes, num_distractors=num_distractors)
        for i in range(0, count, 64)
    ]
    images, labels, objects = (jnp.concatenate(x)[:count] for x in zip(*parts, strict=True))
    return Scenes(images, labels, objects)


@partial(jax.jit, static_argnames=("image_size", "num_classes", "num_distractors"))
def _some_scenes(keys: Key[Array, "N"], **settings: int) -> tuple[Array, Array, Array]:
    return jax.vmap(partial(_scene, **settings))(keys)


def _scene(
    key: Key[Array, ""], *, image_size: int, num_classes: int, num_distractors: int
) -> tuple[UInt8[Array, "S S 3"], Int[Array, ""], Bool[Array, "S S"]]:
    keys = iter(jax.random.split(key, 10 + 2 * num_distractors))
    axis = (jnp.arange(image_size) + 0.5) / image_size
    y, x = jnp.meshgrid(axis, axis, indexing="ij")
    label = jax.random.randint(next(keys), (), 0, num_classes)
    image = _texture(next(keys), x, y, _colour(next(keys)), contrast=0.25)

    hue = _colour(next(keys))
    for _ in range(num_distractors):
        place = jax.random.uniform(next(keys), (6,))
        centre, angle = place[:2], place[2] * jnp.pi
        u, v = _turned(x - centre[0], y - centre[1], angle)
        bar = (jnp.abs(u) < 0.03 + 0.02 * place[3]) & (jnp.abs(v) < 0.1 + 0.1 * place[4])
        blob = (u / 0.05) ** 2 + (v / (0.05 + 0.05 * place[4])) ** 2 < 1
        painted = jnp.where(place[5] < 0.5, bar, blob)
        tint = jnp.clip(hue + 0.15 * jax.random.normal(next(keys), (3,)), 0, 1)
        image = jnp.where(painted[..., None], tint, image)

    size = jax.random.uniform(next(keys), (), minval=0.23, maxval=0.30)
    centre = jax.random.uniform(next(keys), (2,), minval=1.13 * size + 0.02, maxval=0.98 - 1.13 * size)
    angle = jax.random.uniform(next(keys), (), maxval=2 * jnp.pi)
    u, v = _turned((x - centre[0]) / size, (y - centre[1]) / size, angle)
    depth = jnp.stack(_shapes(u, v))[label]
    shown = depth < 1
    lines = jnp.sin(5 * jnp.pi * depth + jax.random.uniform(next(keys), (), maxval=2 * jnp.pi))
    surface = _texture(next(keys), x, y, hue, contrast=0.1) + 0.2 * lines[..., None]
    image = jnp.where(shown[..., None], surface, image)
    image = image + 0.02 * jax.random.normal(next(keys), image.shape)
    return jnp.round(255 * jnp.clip(image, 0, 1)).astype(jnp.uint8), label.astype(jnp.int32), shown


def _turned(x: Array, y: Array, angle: Array) -> tuple[Array, Array]:
    return x * jnp.cos(angle) + y * jnp.sin(angle), y * jnp.cos(angle) - x * jnp.sin(angle)


def _shapes(u: Array, v: Array) -> list[Float[Array, "S S"]]:
    """For each class, each pixel's depth in the shape: 1 on the outline, less inside, more outside.

    The shapes have about the same area, and lie in a circle of radius 1.13.
    """
    r, phi = jnp.hypot(u, v), jnp.arctan2(v, u)
    width, length = jnp.abs(u), jnp.abs(v)
    turns = jnp.array([0.0, 2.0, 4.0]) * jnp.pi / 3
    triangle = jnp.max(u[..., None] * jnp.cos(turns) + v[..., None] * jnp.sin(turns), axis=-1) / 0.62
    arms = [jnp.maximum(a / 1.05, b / 0.33) for a, b in ((width, length), (length, width))]
    star = r / (0.7 + 0.42 * jnp.cos(5 * phi))
    return [
        r / 0.88, jnp.maximum(width, length) / 0.78, triangle, jnp.minimum(*arms), jnp.abs(r - 0.8) / 0.25, star,
    ]  # fmt: skip


def _colour(key: Key[Array, ""]) -> Float[Array, "3"]:
    return jax.random.uniform(key, (3,), minval=0.1, maxval=0.9)


def _texture(key: Key[Array, ""], x: Array, y: Array, colour: Array, *, contrast: float) -> Float[Array, "S S 3"]:
    """Waves of random direction, length and tint around a colour."""
    waves = 4
    angles, phases, lengths, tints = jax.random.split(key, 4)
    turn = jax.random.uniform(angles, (waves,), maxval=jnp.pi)
    phase = jax.random.uniform(phases, (waves,), maxval=2 * jnp.pi)
    pace = 2 * jnp.pi * jnp.exp(jax.random.uniform(lengths, (waves,), minval=0.0, maxval=2.5))
    tint = jax.random.normal(tints, (waves, 3)) / waves**0.5
    along = x[..., None] * jnp.cos(turn) + y[..., None] * jnp.sin(turn)
    return jnp.clip(colour + contrast * jnp.sin(along * pace + phase) @ tint, 0, 1)
