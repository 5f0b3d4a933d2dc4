"""LR-ASPP on MobileNetV3-Large: a light network that gives every pixel of an image D numbers. P2P's selector.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019. The variant is torchvision's for segmentation: the last
stage is dilated instead of strided, so its map has a sixteenth of the image's side. The network is trainable:
BatchNorm is not folded into the convolutions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.depthwise import convolve, depthwise, pointwise

_NORM: dict[str, Any] = {"momentum": 0.99, "epsilon": 1e-3}
_HEAD_NORM: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5}  # torchvision's head has PyTorch's defaults


Activation = Callable[[Array], Array] | None


class Shape(NamedTuple):
    """One inverted residual block."""

    kernel: int
    fan_in: int
    hidden: int
    fan_out: int
    squeeze: bool
    act: Callable[[Array], Array]
    stride: int
    dilation: int = 1


_RE, _HS = jax.nn.relu, jax.nn.hard_swish
_LARGE = (
    Shape(3, 16, 16, 16, False, _RE, 1),
    Shape(3, 16, 64, 24, False, _RE, 2),
    Shape(3, 24, 72, 24, False, _RE, 1),
    Shape(5, 24, 72, 40, True, _RE, 2),
    Shape(5, 40, 120, 40, True, _RE, 1),
    Shape(5, 40, 120, 40, True, _RE, 1),
    Shape(3, 40, 240, 80, False, _HS, 2),
    Shape(3, 80, 200, 80, False, _HS, 1),
    Shape(3, 80, 184, 80, False, _HS, 1),
    Shape(3, 80, 184, 80, False, _HS, 1),
    Shape(3, 80, 480, 112, True, _HS, 1),
    Shape(3, 112, 672, 112, True, _HS, 1),
    Shape(5, 112, 672, 160, True, _HS, 1, 2),
    Shape(5, 160, 960, 160, True, _HS, 1, 2),
    Shape(5, 160, 960, 160, True, _HS, 1, 2),
)
_LOW = 4  # the layer, counting the stem as 0, whose map of an eighth of the side joins the head


class ConvNorm(nnx.Module):
    """Convolution without bias, BatchNorm, activation."""

    def __init__(
        self, fan_in: int, fan_out: int, size: int, act: Activation, *, stride: int = 1, dilation: int = 1,
        depthwise: bool = False, norm: Mapping[str, Any] = _NORM, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.act, self.stride, self.dilation, self.depthwise, self.size = act, stride, dilation, depthwise, size
        shape = (size, size, 1 if depthwise else fan_in, fan_out)
        fan = size * size * fan_out
        init = nnx.initializers.normal((2 / (fan / fan_out if depthwise else fan)) ** 0.5)
        self.kernel = nnx.Param(init(rngs.params(), shape))
        self.norm = nnx.BatchNorm(fan_out, rngs=rngs, **norm)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j D"]:
        margin = self.dilation * (self.size - 1) // 2
        kernel = self.kernel[...]
        if self.size == 1 and self.stride == 1:
            x = pointwise(x, kernel[0, 0])
        elif self.depthwise:
            x = depthwise(x, kernel, self.stride, self.dilation, margin)
        else:
            x = convolve(x, kernel, self.stride, self.dilation, margin)
        norm: Any = self.norm
        if norm.use_running_average:
            x = norm(x)
            return x if self.act is None else self.act(x)
        out: Any = normalize(x, norm.scale[...], norm.bias[...], norm.epsilon, self.act)
        x, mean, var = out
        for running, now in ((norm.mean, mean), (norm.var, var)):
            running[...] = norm.momentum * running[...] + (1 - norm.momentum) * jax.lax.stop_gradient(now)
        return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x: Float[Array, "B h w C"], scale: Float[Array, "C"], bias: Float[Array, "C"], epsilon: float, act: Activation
) -> tuple[Float[Array, "B h w C"], Float[Array, "C"], Float[Array, "C"]]:
    """BatchNorm by the statistics of the batch, then the activation; and the batch's mean and variance.

    Differentiable in reverse mode, where mean and variance count as constants. The gradient keeps `x` alone and
    computes the rest again, which costs less than to write and read it.
    """
    mean = x.mean((0, 1, 2))
    var = jnp.maximum((x * x).mean((0, 1, 2)) - mean * mean, 0)
    z = (x - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias
    return z if act is None else act(z), mean, var


def _normalize(
    x: Array, scale: Array, bias: Array, epsilon: float, act: Activation
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    out: Any = normalize(x, scale, bias, epsilon, act)
    return out, (x, scale, bias, out[1], jax.lax.rsqrt(out[2] + epsilon))


def _normalize_gradient(
    epsilon: float, act: Activation, saved: tuple[Array, ...], gradients: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, inverse = saved
    # Without the barrier XLA finds that it has computed this before, and keeps the result instead of `x`.
    x, g = jax.lax.optimization_barrier((x, gradients[0]))
    slope = scale * inverse
    g = g if act is None else jax.vjp(act, x * slope + (bias - mean * slope))[1](g)[0]
    total = g.sum((0, 1, 2))
    along = ((g * x).sum((0, 1, 2)) - mean * total) * inverse
    tilt = slope * inverse * along / (x.size // x.shape[-1])
    level = slope * total / (x.size // x.shape[-1]) - tilt * mean
    return g * slope - x * tilt - level, along, total


normalize.defvjp(_normalize, _normalize_gradient)


class SqueezeExcite(nnx.Module):
    """Scales each channel by a function of all channels' means."""

    def __init__(self, channels: int, squeezed: int, *, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(channels, squeezed, rngs=rngs)
        self.fc2 = nnx.Linear(squeezed, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        means = x.mean((1, 2), keepdims=True)
        return x * jax.nn.hard_sigmoid(self.fc2(jax.nn.relu(self.fc1(means))))


class InvertedResidual(nnx.Module):
    """Widen, filter each channel, perhaps squeeze and excite, narrow."""

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs):
        self.residual = shape.stride == 1 and shape.fan_in == shape.fan_out
        widened = shape.hidden != shape.fan_in
        self.expand = ConvNorm(shape.fan_in, shape.hidden, 1, shape.act, rngs=rngs) if widened else None
        self.depthwise = ConvNorm(
            shape.hidden, shape.hidden, shape.kernel, shape.act, stride=shape.stride, dilation=shape.dilation,
            depthwise=True, rngs=rngs,
        )  # fmt: skip
        self.squeeze = SqueezeExcite(shape.hidden, _divisible(shape.hidden // 4), rngs=rngs) if shape.squeeze else None
        self.project = ConvNorm(shape.hidden, shape.fan_out, 1, None, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j D"]:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        y = y if self.squeeze is None else self.squeeze(y)
        y = self.project(y)
        return x + y if self.residual else y


class LRASPP(nnx.Module):
    """The network of the module's head, with two 1x1 heads whose sum has `channels` channels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 16, 3, _HS, stride=2, rngs=rngs)
        self.blocks = nnx.List([InvertedResidual(shape, rngs=rngs) for shape in _LARGE])
        self.last = ConvNorm(160, 960, 1, _HS, rngs=rngs)
        self.cbr = ConvNorm(960, 128, 1, _RE, norm=_HEAD_NORM, rngs=rngs)
        self.scale = nnx.Linear(960, 128, use_bias=False, rngs=rngs)
        self.low_head = nnx.Linear(40, channels, rngs=rngs)
        self.high_head = nnx.Linear(128, channels, rngs=rngs)

    def features(self, images: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w 40"], Float[Array, "B h w 128"]]:
        """The inputs of the two heads, both at an eighth of the image's side."""
        x = self.stem(images)
        low = x
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            low = x if i == _LOW else low
        x = self.last(x)
        x = self.cbr(x) * jax.nn.sigmoid(self.scale(x.mean((1, 2), keepdims=True)))
        return low, resize(x, (low.shape[1], low.shape[2]))

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W D"]:
        """D numbers for every pixel."""
        low, high = self.features(images)
        return resize(self.low_head(low) + self.high_head(high), (images.shape[1], images.shape[2]))

    def threshold_shift(self) -> Float[Array, "D"]:
        """What one unit of threshold, added to every input of both heads, adds to each of the D outputs."""
        return self.low_head.kernel[...].sum(0) + self.high_head.kernel[...].sum(0)


def resize(x: Float[Array, "B h w C"], size: tuple[int, int]) -> Float[Array, "B H W C"]:
    """Bilinear interpolation with pixel centres at halves and no antialiasing, as PyTorch's with
    align_corners=False."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)


def _divisible(channels: int, by: int = 8) -> int:
    """The nearest multiple of `by`, never less than 90 % of `channels`."""
    rounded = max(by, (channels + by // 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def _names() -> dict[str, tuple[Place, tuple[int, ...]]]:
    """torchvision's name of every tensor but the heads' -> (its place in our network, its shape in theirs)."""
    table: dict[str, tuple[Place, tuple[int, ...]]] = {}

    def conv_norm(theirs: str, ours: Place, fan_out: int, fan_in: int, size: int) -> None:
        table[f"{theirs}.0.weight"] = ((*ours, "kernel"), (fan_out, fan_in, size, size))
        pairs = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var"))
        for leaf, own in pairs:
            table[f"{theirs}.1.{leaf}"] = ((*ours, "norm", own), (fan_out,))

    conv_norm("backbone.0", ("stem",), 16, 3, 3)
    for i, s in enumerate(_LARGE):
        at, block = f"backbone.{i + 1}.block", ("blocks", i)
        j = 0
        if s.hidden != s.fan_in:
            conv_norm(f"{at}.0", (*block, "expand"), s.hidden, s.fan_in, 1)
            j = 1
        conv_norm(f"{at}.{j}", (*block, "depthwise"), s.hidden, 1, s.kernel)
        j += 1
        if s.squeeze:
            squeezed = _divisible(s.hidden // 4)
            for fc, (fan_out, fan_in) in {"fc1": (squeezed, s.hidden), "fc2": (s.hidden, squeezed)}.items():
                table[f"{at}.{j}.{fc}.weight"] = ((*block, "squeeze", fc, "kernel"), (fan_out, fan_in, 1, 1))
                table[f"{at}.{j}.{fc}.bias"] = ((*block, "squeeze", fc, "bias"), (fan_out,))
            j += 1
        conv_norm(f"{at}.{j}", (*block, "project"), s.fan_out, s.hidden, 1)
    conv_norm("backbone.16", ("last",), 960, 160, 1)
    conv_norm("classifier.cbr", ("cbr",), 128, 960, 1)
    table["classifier.scale.1.weight"] = (("scale", "kernel"), (128, 960, 1, 1))
    return table


def expected_tensors(channels: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of torchvision's `lraspp_mobilenet_v3_large` with heads of `channels` channels, with its shape."""
    return {name: shape for name, (_, shape) in _table(channels).items()}


def _table(channels: int) -> dict[str, tuple[Place, tuple[int, ...]]]:
    table = dict(_names())
    for theirs, ours, fan_in in (("low", "low_head", 40), ("high", "high_head", 128)):
        table[f"classifier.{theirs}_classifier.weight"] = ((ours, "kernel"), (channels, fan_in, 1, 1))
        table[f"classifier.{theirs}_classifier.bias"] = ((ours, "bias"), (channels,))
    return table


def from_tensors(channels: int, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The state of an `LRASPP` (parameters and BatchNorm statistics) from torchvision's names, without a prefix.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    table = _table(channels)
    tensors = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    check_tensors(expected_tensors(channels), tensors, source)
    by_path = {path: np.asarray(tensors[name], np.float32) for name, (path, _) in table.items()}

    def convert(path: Place, shape: tuple[int, ...]) -> np.ndarray:
        array = by_path[path]
        if path[-1] == "kernel":  # OIHW -> HWIO; a 1x1 that is a Linear here loses its two axes of length 1
            array = array.transpose(2, 3, 1, 0).reshape(shape)
        return array

    return fill_state(functools.partial(LRASPP, channels), convert)
