"""EfficientNet-Lite0 and MobileNetV2 for inference: one chain of inverted residual blocks, which a table describes.

Source: Sandler et al., "MobileNetV2", CVPR 2018; Tan and Le, "EfficientNet", ICML 2019. The Lite variant is
EfficientNet-B0 without squeeze-and-excitation, with ReLU6 for swish.

`from_tensors` folds each BatchNorm into the convolution before it. At inference BatchNorm is an affine map of each
channel, so the folded convolution is the same function, with one pass less over every activation and half as many
arrays to carry around.

On the CPU the network runs in a form of its own (`_features_cpu`), eight times as fast as XLA's convolutions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.base import ClassifierNetwork, Features
from jaxmoxi.models.networks.cnn_config import (
    BlockShape,
    InvertedResidualConfig,
    Naming,
    classifier_name,
    convolutions,
    detect_naming,
    expected_tensors,
    network_shape,
)
from jaxmoxi.models.networks.cnn_settings import config_from_settings, published_preprocessing
from jaxmoxi.models.networks.depthwise import shifted_sum
from jaxmoxi.models.networks.registry import Family, register

__all__ = [
    "Block",
    "Conv",
    "InvertedResidualConfig",
    "InvertedResidualNet",
    "Naming",
    "config_from_settings",
    "detect_naming",
    "expected_tensors",
    "from_tensors",
]


class Conv(nnx.Module):
    """Kernel [k, k, in, out] and bias [out] of a convolution with its BatchNorm folded in. Depthwise has in = 1."""

    def __init__(self, size: int, fan_in: int, fan_out: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (size, size, fan_in, fan_out)))
        self.bias = nnx.Param(jnp.zeros(fan_out))


class Block(nnx.Module):
    """Widen by 1x1 (`expand`, absent where nothing is widened), filter each channel, narrow by 1x1."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        self.stride = shape.stride
        self.residual = shape.stride == 1 and shape.fan_in == shape.fan_out
        self.expand = None if shape.hidden == shape.fan_in else Conv(1, shape.fan_in, shape.hidden, rngs=rngs)
        self.depthwise = Conv(shape.kernel, 1, shape.hidden, rngs=rngs)
        self.project = Conv(1, shape.hidden, shape.fan_out, rngs=rngs)


class InvertedResidualNet(ClassifierNetwork):
    """Stem convolution, inverted residual blocks, head convolution, mean over positions, linear classifier."""

    float32_parameters = frozenset({"classifier"})

    def __init__(self, config: InvertedResidualConfig, *, rngs: nnx.Rngs):
        stem, blocks, head = network_shape(config)
        self.padding = config.padding
        self.num_channels = config.num_channels
        self.stem = Conv(3, config.num_channels, stem, rngs=rngs)
        self.blocks = nnx.List([Block(shape, rngs=rngs) for shape in blocks])
        self.head = Conv(1, blocks[-1].fan_out, head, rngs=rngs)
        self.classifier = nnx.Linear(head, config.num_classes, rngs=rngs)

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The last convolution's maps, in [0, 6]: h and w are H and W divided by 32, rounded up.

        Raises ValueError for images of another shape.
        """
        if images.ndim != 4 or images.shape[-1] != self.num_channels:
            raise InputError(
                f"expected images [B, H, W, {self.num_channels}]; got {list(images.shape)}: image[None] adds a batch "
                "axis"
            )
        images = images.astype(self.stem.kernel.dtype)
        # Not chosen by jax.default_backend(): the program may be lowered for another platform than it is traced on.
        native = functools.partial(self._chain, depthwise=_convolve, pointwise=_convolve)
        return Features(jax.lax.platform_dependent(images, cpu=self._features_cpu, default=native))

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        return self.classifier(features.maps.astype(self.classifier.kernel.dtype).mean((1, 2)))

    def _features_cpu(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B h w C"]:
        pair = 2 - len(images) % 2  # an odd batch goes one by one: still faster than all at once
        chain = functools.partial(self._chain, depthwise=_shifted, pointwise=_matmul)
        maps = jax.lax.map(chain, images.reshape(len(images) // pair, pair, *images.shape[1:]))
        return maps.reshape(len(images), *maps.shape[2:])

    def _chain(self, x: Array, *, depthwise: Callable[..., Array], pointwise: Callable[..., Array]) -> Array:
        relu6 = jax.nn.relu6
        x = relu6(_convolve(x, self.stem, 2, self.padding))
        for block in self.blocks:
            y = x if block.expand is None else relu6(pointwise(x, block.expand))
            y = relu6(depthwise(y, block.depthwise, block.stride, self.padding))
            y = pointwise(y, block.project)
            x = x + y if block.residual else y
        return relu6(pointwise(x, self.head))


def _margins(length: int, size: int, stride: int, padding: str) -> tuple[int, int]:
    """How many zeros stand before and behind an axis."""
    if padding == "symmetric":
        return size // 2, size // 2
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def _convolve(x: Array, conv: Conv, stride: int = 1, padding: str = "symmetric") -> Array:
    """XLA's convolution; depthwise where the kernel has one input channel."""
    size = conv.kernel.shape[0]
    y = jax.lax.conv_general_dilated(
        x,
        conv.kernel[...],
        (stride, stride),
        [_margins(length, size, stride, padding) for length in x.shape[1:3]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // conv.kernel.shape[2],
    )
    return y + conv.bias[...]


# What follows is for XLA's CPU backend, which has no fast depthwise convolution. EfficientNet-Lite0 at 224 pixels on
# two AVX2 cores, images per second for batches of 8, 16 and 32 in one run each (compare within a column):
#     convolutions throughout                    6   5   6
#     1x1 convolutions as matrix products        7   4   6
#     depthwise as shifted sums                 34  20  28
#     both                                      39  24  35
#     both, two images at a time                52  34  49     early layers stay in the cache; one or four are slower
#     ... and padding kept out of the sums      54  43  54     5 to 10 % in longer runs, and less to compile


def _shifted(x: Array, conv: Conv, stride: int, padding: str) -> Array:
    margins = [_margins(length, conv.kernel.shape[0], stride, padding) for length in x.shape[1:3]]
    return shifted_sum(x, conv.kernel[...], stride=stride, margins=margins) + conv.bias[...]


def _matmul(x: Array, conv: Conv) -> Array:
    """A 1x1 convolution as one matrix product over all positions."""
    return jnp.dot(x.reshape(-1, x.shape[-1]), conv.kernel[...][0, 0]).reshape(*x.shape[:-1], -1) + conv.bias[...]


def from_tensors(config: InvertedResidualConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of an `InvertedResidualNet`, as an NNX state, from a checkpoint's tensors.

    tensors: in the names of efficientnet_pytorch, timm, torchvision or Hugging Face, PyTorch's layouts; BatchNorm is
             folded in float64 and rounded once to float32.
    source:  what to call the checkpoint in an error.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    naming = detect_naming(tensors)
    check_tensors(expected_tensors(config, naming), tensors, source)
    linear = classifier_name(naming)
    slots: dict[Place, np.ndarray] = {
        ("classifier", "kernel"): np.asarray(tensors[f"{linear}.weight"]).T,
        ("classifier", "bias"): np.asarray(tensors[f"{linear}.bias"]),
    }
    for slot, (conv, norm, _) in convolutions(config, naming).items():
        leaves = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (np.asarray(tensors[f"{norm}.{leaf}"], np.float64) for leaf in leaves)
        scale = scale / np.sqrt(variance + config.norm_eps)
        kernel = np.asarray(tensors[f"{conv}.weight"], np.float64).transpose(2, 3, 1, 0)  # OIHW -> HWIO
        slots[*slot, "kernel"], slots[*slot, "bias"] = kernel * scale, shift - mean * scale
    return fill_state(functools.partial(InvertedResidualNet, config), lambda path, shape: slots[path])


register(
    Family(
        network=InvertedResidualNet,
        config=InvertedResidualConfig,
        model_types=("mobilenet_v2",),
        architectures=("*efficientnet_lite0*", "mobilenetv2*", "mobilenet_v2*"),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        any_size=True,
    )
)
