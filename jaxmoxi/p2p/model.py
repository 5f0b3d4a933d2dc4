"""A P2P model as one value: the states of the selector and the classifier, and the pure functions over them.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025. The selector sees the whole image and decides which
groups of pixels (superpixels) are kept; the classifier sees the kept groups alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoxi.compiling import compiled
from jaxmoxi.errors import InputError
from jaxmoxi.models.networks import lraspp, trainable_resnet, vit
from jaxmoxi.models.networks.selector import Reranking, SmallSelector
from jaxmoxi.models.networks.small_cnn import SmallCNN
from jaxmoxi.p2p.config import CNNConfig, Config, ViTConfig
from jaxmoxi.p2p.distribution import group_means, most_likely, over_pixels, within_budget
from jaxmoxi.p2p.ranges import check_range
from jaxmoxi.pytrees import record, static

State = nnx.State[Any, Any]
Selector = lraspp.LRASPP | SmallSelector | Reranking
Classifier = vit.ViT | trainable_resnet.ResNet | SmallCNN


@record
class P2P:
    """A P2P model. A pytree: the two states are its leaves, the configuration is structure.

    selector, classifier: NNX states, parameters and BatchNorm statistics.
    """

    selector: State
    classifier: State
    config: Config = static()

    def normalize(self, images: ArrayLike) -> Float[Array, "B H W 3"]:
        """Images as the networks take them: uint8, or float in [0, 1], become normalised float32.

        Raises ValueError for other dtypes and sizes, and for numbers outside [0, 1] or not finite; under `jit`, where
        the numbers are not known, only the dtype and the size are checked.
        """
        return normalize(images, self.config)

    @compiled
    def importance(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W D"]:
        """The selector's numbers for every pixel, at threshold 0, in inference mode. images: normalised."""
        return self.modules()[0](images)

    def shift(self) -> Float[Array, "D"]:
        """What a unit of threshold adds to each of the numbers of `importance`; zeros without dynamic threshold."""
        if not self.config.dynamic_threshold:
            return jnp.zeros(self.config.channels)
        return self.modules()[0].threshold_shift()

    @compiled
    def group_logits(
        self, images: Float[Array, "B H W 3"], regions: Int[Array, "B H W"], taus: Float[Array, "T"]
    ) -> tuple[Float[Array, "T B G"], Float[Array, "B G"], Float[Array, "B G E"]]:
        """The groups' logits at each threshold, their shares of the image, and their embeddings at threshold 0.

        The selector's network runs once, whatever T. A fixed-threshold model answers the same at every threshold.
        images: normalised.
        """
        selector, config = self.modules()[0], self.config
        means, shares = group_means(selector(images), regions, config.num_groups)

        def at(tau: Array) -> Array:
            return at_threshold(selector, means, shares, jnp.broadcast_to(tau, len(means)), config)[0]

        return jax.vmap(at)(taus), shares, means[..., 1 : config.channels]

    def keep(
        self, logits: Float[Array, "T B G"], shares: Float[Array, "B G"], taus: Float[Array, "T"]
    ) -> Bool[Array, "T B G"]:
        """The groups that are kept at test time at each threshold, from the answer of `group_logits`."""
        shares = jnp.broadcast_to(shares, logits.shape)
        return kept_groups(logits, shares, jnp.broadcast_to(taus[:, None], logits.shape[:2]), self.config)

    @compiled
    def classify(
        self, images: Float[Array, "B H W 3"], groups: Bool[Array, "B G"], regions: Int[Array, "B H W"]
    ) -> Float[Array, "B K"]:
        """log(p + 1e-6) of each class, from the kept groups alone. images: normalised."""
        mask = over_pixels(groups, regions)[..., None]
        logits = self.modules()[1](jnp.where(mask, images, fill_colour(self.config)))
        return jnp.log(jax.nn.softmax(logits, axis=-1) + 1e-6)

    def modules(self) -> tuple[Selector, Classifier]:
        """Selector and classifier as NNX modules in inference mode."""
        selector, classifier = structures(self.config)
        pair = nnx.merge(selector, self.selector), nnx.merge(classifier, self.classifier)
        for module in pair:
            module.eval()
        return pair


def normalize(images: ArrayLike, config: Config) -> Float[Array, "B H W 3"]:
    """uint8 images in 0 .. 255, or float ones in [0, 1], normalised by the configuration's mean and deviation."""
    check_range(images)
    images = jnp.asarray(images)
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    elif not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"expected uint8 images, or float ones in [0, 1]; got {images.dtype}")
    side = config.image_size
    if images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise InputError(f"expected images [B, {side}, {side}, 3]; got shape {list(images.shape)}")
    return (images - jnp.asarray(config.mean)) / jnp.asarray(config.std)


def fill_colour(config: Config) -> Float[Array, "3"]:
    """The value of a hidden pixel, normalised."""
    return (config.fill - jnp.asarray(config.mean)) / jnp.asarray(config.std)


def at_threshold(
    selector: Selector,
    means: Float[Array, "B G D"],
    shares: Float[Array, "B G"],
    tau: Float[Array, "B"],
    config: Config,
) -> tuple[Float[Array, "B G"], Float[Array, "B G E"]]:
    """The groups' logits and embeddings at each image's threshold, from their mean numbers at threshold 0.

    The threshold is added to every input of the selector's linear head, so it adds tau * shift to the head's outputs. A
    group without pixels stays at 0, and is not kept.
    """
    numbers, features = means[..., : config.channels], means[..., config.channels :]
    if not config.dynamic_threshold:
        return numbers[..., 0], numbers[..., 1:]
    real = (shares > 0)[..., None]
    numbers = numbers + real * tau[:, None, None] * selector.threshold_shift()[: config.channels]
    mu = numbers[..., 0]
    if isinstance(selector, Reranking):
        mu = mu + real[..., 0] * selector.rerank(features, tau)
    return mu, numbers[..., 1:]


def kept_groups(
    mu: Float[Array, "*B G"], shares: Float[Array, "*B G"], tau: Float[Array, "*B"], config: Config
) -> Bool[Array, "*B G"]:
    """The groups kept at test time: the likely ones; with `exact_budget`, as many as fit the threshold's share."""
    kept = most_likely(mu, shares)
    return kept & within_budget(kept.astype(mu.dtype), mu, shares, tau) if config.exact_budget else kept


def networks(config: Config, rngs: nnx.Rngs) -> tuple[Selector, Classifier]:
    """A new selector and a new classifier."""
    rerank = config.threshold_input == "rerank"
    width = config.channels + (Reranking.NUM_FEATURES if rerank else 0)
    selector = {"lraspp": lraspp.LRASPP, "small": SmallSelector}[config.selector](width, rngs=rngs)
    if rerank:
        selector = Reranking(selector, rngs=rngs)
    if isinstance(config.classifier, ViTConfig):
        return selector, vit.ViT(config.classifier.full(config.image_size, config.num_classes), rngs=rngs)
    if isinstance(config.classifier, CNNConfig):
        return selector, SmallCNN(config.classifier.widths, config.num_classes, rngs=rngs)
    shape = trainable_resnet.ResidualNetConfig(config.classifier.depth, config.num_classes)
    return selector, trainable_resnet.ResNet(shape, rngs=rngs)


def init(key: Key[Array, ""], config: Config) -> P2P:
    """A model with random weights. `from_torch` makes one from published weights."""
    selector, classifier = _fresh(key, config)
    return P2P(selector, classifier, config)


@functools.partial(jax.jit, static_argnums=1)
def _fresh(key: Array, config: Config) -> tuple[State, State]:
    pair = networks(config, nnx.Rngs(key))
    return tuple(nnx.state(module, nnx.Not(nnx.RngState)) for module in pair)  # type: ignore[return-value]


def from_torch(state_dict: Mapping[str, np.ndarray], config: Config) -> P2P:
    """A model from a state dict of the published code (name -> NumPy array; `models.read_torch` reads a file).

    `selector.importance_predictor.model.*` is torchvision's LR-ASPP on MobileNetV3-Large, `classifier.model.*` a
    Hugging Face ViT or a torchvision ResNet. Raises ValueError that lists missing, extra and misshapen tensors.
    """
    if config.selector != "lraspp":
        raise InputError('the published selector is LR-ASPP; use a Config with selector="lraspp"')
    if config.threshold_input != "shift":
        raise InputError('the published threshold shifts; use a Config with threshold_input="shift"')
    if isinstance(config.classifier, CNNConfig):
        raise InputError("the published classifiers are vision transformers and ResNets; use a Config with one of them")
    prefixes = ("selector.importance_predictor.model.", "classifier.model.")
    parts: tuple[dict[str, np.ndarray], ...] = ({}, {})
    ignored = ("min_vals", "selector.curr_temp")  # constants that stand in the configuration
    for name, tensor in state_dict.items():
        for prefix, part in zip(prefixes, parts, strict=True):
            if name.startswith(prefix):
                part[name.removeprefix(prefix)] = np.asarray(tensor)
                break
        else:
            if name not in ignored:
                raise InputError(f"expected tensors under {' and '.join(prefixes)}; got {name!r}")
    selector = lraspp.from_tensors(config.channels, parts[0], source="the state dict's selector")
    if isinstance(config.classifier, ViTConfig):
        full = config.classifier.full(config.image_size, config.num_classes)
        classifier = vit.from_tensors(full, parts[1], source="the state dict's classifier")
    else:
        shape = trainable_resnet.ResidualNetConfig(config.classifier.depth, config.num_classes)
        classifier = trainable_resnet.from_tensors(shape, parts[1], source="the state dict's classifier")
    return P2P(selector, jax.tree.map(jnp.asarray, classifier), config)


@functools.cache
def structures(config: Config) -> tuple[nnx.GraphDef, nnx.GraphDef]:
    """The static halves of the networks, built once for each configuration."""
    pair = nnx.eval_shape(lambda: networks(config, nnx.Rngs(0)))
    return tuple(nnx.split(module)[0] for module in pair)  # type: ignore[return-value]
