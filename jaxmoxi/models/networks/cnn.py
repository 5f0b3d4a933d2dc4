"""EfficientNet, MobileNetV2 and MobileNetV3 for inference: a chain of inverted residual blocks, which tables describe.

Source: Sandler et al., "MobileNetV2", CVPR 2018; Howard et al., "Searching for MobileNetV3", ICCV 2019; Tan and Le,
"EfficientNet", ICML 2019. EfficientNet-Lite0 is B0 without squeeze-and-excitation, with ReLU6 for swish.

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

from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state, fold_norm
from jaxmoxi.models.networks.base import ClassifierNetwork, Features, check_batch
from jaxmoxi.models.networks.cnn_config import BlockShape, InvertedResidualConfig, network_shape
from jaxmoxi.models.networks.cnn_names import Naming, convolutions, detect_naming, expected_tensors, linears
from jaxmoxi.models.networks.cnn_settings import config_from_settings, published_preprocessing
from jaxmoxi.models.networks.depthwise import in_pairs, shifted_sum
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS
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


class Squeeze(nnx.Module):
    """Squeeze-and-excitation: each channel times a gate in [0, 1], which reads the means of all channels."""

    def __init__(self, channels: int, squeezed: int, activation: str, *, hard: bool, rngs: nnx.Rngs):
        self.activation = activation
        self.hard = hard
        self.reduce = nnx.Linear(channels, squeezed, rngs=rngs)
        self.expand = nnx.Linear(squeezed, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        # The barrier keeps the convolution out of the mean and the product, which would each compute it.
        x = jax.lax.optimization_barrier(x)
        gate = self.expand(ACTIVATIONS[self.activation](self.reduce(x.mean((1, 2)))))
        gate = jax.nn.relu6(gate + 3) * (1 / 6) if self.hard else jax.nn.sigmoid(gate)
        return x * gate[:, None, None]


class Block(nnx.Module):
    """Widen by 1x1 (`expand`, absent where nothing is widened), filter each channel, gate them, narrow by 1x1."""

    def __init__(self, shape: BlockShape, *, hard: bool, rngs: nnx.Rngs):
        self.stride, self.padding = shape.stride, shape.padding
        self.residual, self.activation = shape.residual, shape.activation
        self.expand = None if shape.hidden == shape.fan_in else Conv(1, shape.fan_in, shape.hidden, rngs=rngs)
        self.depthwise = Conv(shape.kernel, 1, shape.hidden, rngs=rngs)
        # MobileNetV3's has gates of straight lines, and ReLU whatever the block's activation.
        inner = "relu" if hard else shape.activation
        gate = functools.partial(Squeeze, shape.hidden, shape.squeeze, inner, hard=hard, rngs=rngs)
        self.squeeze = gate() if shape.squeeze else None
        self.project = Conv(1, shape.hidden, shape.fan_out, rngs=rngs)


class InvertedResidualNet(ClassifierNetwork):
    """Stem convolution, inverted residual blocks, head convolution, mean over positions, linear classifier.

    MobileNetV3 has a layer (`hidden`) before the classifier.
    """

    float32_parameters = frozenset({"hidden", "classifier"})

    def __init__(self, config: InvertedResidualConfig, *, rngs: nnx.Rngs):
        shape = network_shape(config)
        hard = config.arch.startswith("mobilenet_v3")
        self.padding = config.padding
        self.num_channels = config.num_channels
        self.activation = shape.activation
        self.stem = Conv(3, config.num_channels, shape.stem, rngs=rngs)
        self.blocks = nnx.List([Block(block, hard=hard, rngs=rngs) for block in shape.blocks])
        self.head = Conv(1, shape.blocks[-1].fan_out, shape.head, rngs=rngs)
        self.hidden = nnx.Linear(shape.head, shape.hidden, rngs=rngs) if shape.hidden else None
        self.classifier = nnx.Linear(shape.hidden or shape.head, config.num_classes, rngs=rngs)

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The last convolution's maps: h and w are H and W divided by 32, rounded up.

        Raises ValueError for images of another shape.
        """
        check_batch(images, self.num_channels)
        images = images.astype(self.stem.kernel.dtype)
        # Not chosen by jax.default_backend(): the program may be lowered for another platform than it is traced on.
        native = functools.partial(self._chain, depthwise=_convolve, pointwise=_convolve)
        pairs = functools.partial(in_pairs, functools.partial(self._chain, depthwise=_shifted, pointwise=_matmul))
        return Features(jax.lax.platform_dependent(images, cpu=pairs, default=native))

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        x = features.maps.astype(self.classifier.kernel.dtype).mean((1, 2))
        if self.hidden is not None:
            x = ACTIVATIONS[self.activation](self.hidden(x))
        return self.classifier(x)

    def _chain(self, x: Array, *, depthwise: Callable[..., Array], pointwise: Callable[..., Array]) -> Array:
        outer = ACTIVATIONS[self.activation]
        x = outer(_convolve(x, self.stem, 2, self.padding))
        for block in self.blocks:
            act = ACTIVATIONS[block.activation]
            y = x if block.expand is None else act(pointwise(x, block.expand))
            y = act(depthwise(y, block.depthwise, block.stride, block.padding))
            y = pointwise(y if block.squeeze is None else block.squeeze(y), block.project)
            x = x + y if block.residual else y
        return outer(pointwise(x, self.head))


def _margins(length: int, size: int, stride: int, padding: str) -> tuple[int, int]:
    """How many zeros stand before and behind an axis."""
    if padding == "symmetric" or (padding == "keras" and stride == 1):
        return size // 2, size // 2
    if padding == "keras":
        return size // 2 - 1, size // 2
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
    slots: dict[Place, np.ndarray] = {}
    for slot, (name, shape) in linears(config, naming).items():
        slots[*slot, "kernel"] = np.asarray(tensors[f"{name}.weight"]).reshape(shape[:2]).T
        slots[*slot, "bias"] = np.asarray(tensors[f"{name}.bias"])
    for slot, (conv, norm, _) in convolutions(config, naming).items():
        slots[*slot, "kernel"], slots[*slot, "bias"] = fold_norm(tensors, conv, norm, config.norm_eps)
    return fill_state(functools.partial(InvertedResidualNet, config), lambda path, shape: slots[path])


register(
    Family(
        network=InvertedResidualNet,
        config=InvertedResidualConfig,
        model_types=("efficientnet", "mobilenet_v2"),
        architectures=(
            *("efficientnet-b*", "efficientnet_b*", "tf_efficientnet_b*", "*efficientnet_lite0*"),
            *("mobilenetv2*", "mobilenet_v2*", "mobilenetv3*", "mobilenet_v3*", "tf_mobilenetv3*"),
        ),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        any_size=True,
    )
)
