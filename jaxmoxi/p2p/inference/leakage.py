"""Does the mask itself carry the label? Two checks by evaluators that had no part in the training.

A selector and a classifier that are trained together may agree on a code: the *shape* of what is kept gives the class,
whatever the pixels show. Then the masks alone, without a pixel of the image, predict the label (`mask_leakage`), and a
classifier that was trained without masks fails on the masked images (`heldout_accuracy`).

Sources: Jethani et al., "Have We Learned to Explain?", AISTATS 2021, for the fault and for judging by a held-out
evaluator; Hooker et al., NeurIPS 2019, for how a network may take what is hidden as evidence.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.model import State
from jaxmoxi.pytrees import Packed, pack, record

_SIDE = 32  # masks are looked at in this size
_BATCH = 64
_RATE = 2e-3  # the learning rate at the start; it falls to 0 along a cosine


@record
class MaskLeakage:
    """How well the masks alone predict the label, on images that the evaluator was not trained on.

    accuracy:  accuracy of the evaluator, in [0, 1].
    majority:  accuracy of always answering the commonest class of the other half, in [0, 1].
    num_test:  number of images on which both were measured.
    """

    accuracy: float
    majority: float
    num_test: int

    @property
    def standard_error(self) -> float:
        """The standard error of the accuracy, from its binomial variance."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.num_test))


def mask_leakage(
    key: Key[Array, ""],
    masks: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    num_steps: int = 400,
) -> MaskLeakage:
    """Trains a small convolutional network on half of the masks and tests it on the other half.

    key:       decides the halves, the weights and the batches.
    masks:     bool[N, H, W], N >= 4, the pixels kept (`Prediction.pixel_mask`). The network sees them at 32 x 32.
    labels:    int[N], 0 .. num_classes-1.
    num_steps: steps of training, at least 1.

    Masks without information give an `accuracy` near `majority`. An object's outline may be honest evidence: where the
    shape is the class, a mask that traces the object gives it away. Compare with the leakage of the objects' own masks.
    Raises ValueError for impossible shapes or labels.
    """
    masks, labels = np.asarray(masks), np.asarray(labels)
    count = len(labels)
    if masks.ndim != 3 or masks.dtype != bool or len(masks) != count or count < 4:
        raise InputError(
            f"expected masks bool[N, H, W] and labels int[N], N >= 4; got {masks.dtype}{list(masks.shape)} and "
            f"{list(labels.shape)}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"expected labels 0 .. {num_classes - 1}; got {labels.dtype} {labels.min()} .. {labels.max()}")
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1; got {num_steps}")
    split_key, weights_key, batch_key = jax.random.split(key, 3)
    small = np.concatenate([_shrink(masks[i : i + 256]) for i in range(0, count, 256)])
    order = np.asarray(jax.random.permutation(split_key, count))
    train, test = order[: count // 2], order[count // 2 :]
    small -= small[train].mean(0)
    state = _train(weights_key, batch_key, small[train], labels[train].astype(np.int32), num_classes, num_steps)
    parts = np.array_split(test, range(256, len(test), 256))
    answers = np.concatenate([np.asarray(_answer(num_classes, state, small[part])) for part in parts])
    commonest = np.bincount(labels[train], minlength=num_classes).argmax()
    return MaskLeakage(float(np.mean(answers == labels[test])), float(np.mean(labels[test] == commonest)), len(test))


def heldout_accuracy(
    logits_fn: Callable[[Array], Array],
    images: ArrayLike,
    pixel_mask: ArrayLike,
    labels: ArrayLike,
    *,
    fill: ArrayLike = 0.0,
    batch_size: int = 64,
) -> float:
    """The accuracy, in [0, 1], of an independent classifier on what was kept of the images.

    logits_fn:  float32[B, H, W, 3] -> float32[B, K], a classifier of whole images, trained elsewhere.
    images:     float32[N, H, W, 3], as `logits_fn` takes them (normalised).
    pixel_mask: bool[N, H, W], the pixels kept; all True gives the accuracy on whole images, to compare with.
    labels:     int[N].
    fill:       value of a hidden pixel, in the images' units: a number or float[3].
    batch_size: images that go through the classifier together.
    Raises ValueError for shapes that do not fit, images that are not finite, and labels that are no class of
    `logits_fn`; FloatingPointError if that answers NaN.
    """
    images, pixel_mask, labels = np.asarray(images), np.asarray(pixel_mask), np.asarray(labels)
    count = len(labels)
    if images.ndim != 4 or pixel_mask.shape != images.shape[:3] or labels.shape != images.shape[:1] or not count:
        raise InputError(
            f"expected images [N, H, W, 3], pixel_mask [N, H, W] and labels [N] of one N >= 1; got "
            f"{list(images.shape)}, {list(pixel_mask.shape)} and {list(labels.shape)}"
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"expected integer labels; got {labels.dtype}")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError("expected finite images; got NaN or infinite numbers: find where they come from")
    if np.shape(fill) not in ((), (3,)):
        raise InputError(f"expected a fill of one number or three; got shape {list(np.shape(fill))}")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    packed, size, right = pack(logits_fn), min(batch_size, count), 0
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        own = rows < count
        rows = np.minimum(rows, count - 1)  # one compiled size
        answers, num_classes = _seen(packed, images[rows], pixel_mask[rows], jnp.asarray(fill, jnp.float32))
        answers = np.asarray(answers)
        if (answers < 0).any():
            raise FloatingPointError(f"logits_fn answers NaN for image {rows[answers < 0][0]}")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise InputError(
                f"expected labels 0 .. {int(num_classes) - 1}, of the {int(num_classes)} classes of logits_fn; got "
                f"{labels.min()} .. {labels.max()}"
            )
        right += int(np.sum((answers == labels[rows]) & own))
    return right / count


@jax.jit
def _seen(logits_fn: Packed, images: Array, mask: Array, fill: Array) -> tuple[Array, int]:
    """The class of each image, -1 where a logit is NaN, and the number of classes."""
    logits = logits_fn(jnp.where(mask[..., None], images, fill))
    return jnp.where(jnp.isnan(logits).any(-1), -1, jnp.argmax(logits, axis=-1)), logits.shape[-1]


class _MaskNet(nnx.Module):
    """Three convolutions, then a dense layer over all places: it can learn what shape is kept, and where."""

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
        widths = (1, 16, 32, 32)
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), strides=2, rngs=rngs) for a, b in itertools.pairwise(widths)])
        self.head = nnx.Linear(widths[-1] * (_SIDE // 8) ** 2, num_classes, rngs=rngs)

    def __call__(self, masks: Float[Array, "B 32 32"]) -> Float[Array, "B K"]:
        x = masks[..., None]
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return self.head(x.reshape(len(x), -1))


def _train(
    weights_key: Array, batch_key: Array, masks: np.ndarray, labels: np.ndarray, num_classes: int, num_steps: int
) -> State:
    state, memory = _start(weights_key, num_classes)
    batches = jax.random.randint(batch_key, (num_steps, min(_BATCH, len(labels))), 0, len(labels))
    rates = np.asarray(optax.cosine_decay_schedule(_RATE, num_steps)(np.arange(num_steps)))
    for rows, rate in zip(np.asarray(batches), rates, strict=True):
        # A Python loop, not `scan`: inside an XLA loop, convolutions on the CPU are many times slower.
        state, memory = _step(state, memory, masks[rows], labels[rows], rate, num_classes)
    return state


_ADAM = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(1e-2))


@functools.partial(jax.jit, static_argnums=1)
def _start(key: Array, num_classes: int) -> tuple[State, optax.OptState]:
    state = nnx.state(_MaskNet(num_classes, rngs=nnx.Rngs(key)))
    return state, _ADAM.init(state)


@functools.partial(jax.jit, static_argnums=5)
def _step(
    state: State, memory: optax.OptState, masks: Array, labels: Array, rate: Array, num_classes: int
) -> tuple[State, optax.OptState]:
    def loss(state: State) -> Array:
        logits = _logits(num_classes, state, masks)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, memory = _ADAM.update(jax.grad(loss)(state), memory, state)
    return jax.tree.map(lambda x, u: x - rate * u, state, updates), memory


@functools.partial(jax.jit, static_argnums=0)
def _answer(num_classes: int, state: State, masks: Array) -> Array:
    return jnp.argmax(_logits(num_classes, state, masks), axis=-1)


def _logits(num_classes: int, state: State, masks: Array) -> Array:
    structure = nnx.split(nnx.eval_shape(lambda: _MaskNet(num_classes, rngs=nnx.Rngs(0))))[0]
    return nnx.merge(structure, state)(masks)


def _shrink(masks: np.ndarray) -> np.ndarray:
    """The kept share of each cell of a 32 x 32 grid, float32[N, 32, 32]."""
    shape = (len(masks), _SIDE, _SIDE)
    return np.array(jax.image.resize(masks.astype(np.float32), shape, "linear", antialias=True))
