"""Attention in plain JAX, in the two layouts between which `attention` chooses, and the weights that both compute."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# What a head adds to its scores: from the head's number to an array that fits [B, N, N].
Bias = Callable[[int], Array]

Present = Bool[Array, "B N"] | Float[Array, "B N"]


def attention_weights(scores: Float[Array, "B ... N"], present: Present) -> Float[Array, "B ... N"]:
    """Attention weights in float32 along the last axis, none on absent tokens."""
    scores = scores.astype(jnp.float32)
    there = present.reshape(len(present), *(1,) * (scores.ndim - 2), -1)
    if present.dtype != bool:
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))) * there
        return weights / jnp.sum(weights, axis=-1, keepdims=True)
    return jax.nn.softmax(jnp.where(there, scores, -jnp.inf), axis=-1)


def attend_by_head(
    qkv: Float[Array, "B N D3"], present: Present, *, num_heads: int, bias: Bias | None = None
) -> Float[Array, "B N D"]:
    """One batched product for each head, over the rows alone; see `attention.attention`."""
    query, key, value = jnp.split(qkv, 3, axis=-1)
    width = query.shape[-1]
    head = width // num_heads
    query = query * jnp.asarray(head**-0.5, query.dtype)
    outputs = []
    for start in range(0, width, head):
        part = slice(start, start + head)
        scores = jnp.einsum("bqd,bkd->bqk", query[..., part], key[..., part])
        if bias is not None:
            scores = scores.astype(jnp.float32) + bias(start // head).astype(jnp.float32)
        weights = attention_weights(scores, present).astype(value.dtype)
        outputs.append(jnp.einsum("bqk,bkd->bqd", weights, value[..., part]))
    return jnp.concatenate(outputs, axis=-1)


def attend_batched(
    qkv: Float[Array, "B N D3"], present: Present, *, num_heads: int, bias: Bias | None = None
) -> Float[Array, "B N D"]:
    """One product over rows and heads; see `attention.attention`."""
    batch, count, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    query, key, value = (x.reshape(batch, count, num_heads, -1) for x in jnp.split(qkv, 3, axis=-1))
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
    if bias is not None:
        biases = jnp.stack([bias(h).astype(jnp.float32) for h in range(num_heads)], axis=-3)
        scores = scores.astype(jnp.float32) + biases
    weights = attention_weights(scores, present).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, count, width)
