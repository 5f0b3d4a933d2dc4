"""What a user gives for a game of an image, looked at as far as its numbers are there: image, class and link."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.payoff import Link, Payoff, check_link
from jaxmoxi.pytrees import is_concrete


def check_not_torch(fn: Any) -> None:
    """Raises InputError for a PyTorch module, which no function of JAX can be."""
    torch = sys.modules.get("torch")  # a module of it can only be met where it has been imported
    if torch is not None and isinstance(fn, torch.nn.Module):
        raise InputError(
            f"expected a function that JAX can trace; got {type(fn).__name__}, a PyTorch module. {_BRIDGES}"
        )


def needs_numbers(error: TypeError) -> bool:
    """Whether an error comes of a function that wants the numbers of what JAX traces, as NumPy and PyTorch do."""
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return True
    return "Tracer" in str(error) and any(words in str(error) for words in _TORCH_REFUSES)


def no_trace_error(error: TypeError) -> InputError:
    """The error for a classifier that asks for its images' numbers while JAX traces it."""
    return InputError(
        "expected a function that JAX can trace; this one asks for the images' numbers, as NumPy and PyTorch do "
        f"({str(error).splitlines()[0]}). {_BRIDGES}"
    )


_TORCH_REFUSES = ("must be Tensor, not", "invalid combination of arguments", "expected np.ndarray")
_BRIDGES = (
    "For a PyTorch module there are from_torch(module), traced into JAX, and from_callable(module, num_classes), "
    "called back on the host; for a function of NumPy arrays there is from_callable(fn, num_classes)"
)


def check_image(image: Any, owner: Any) -> Num[Array, "H W channels"]:
    """The image as an array, looked at as far as its numbers are there. `owner`: the classifier, or a function."""
    image = _as_array(image)
    if image.ndim != 3 or 0 in image.shape:
        hint = {
            2: ". A grey one is image[..., None]",
            4: ". Of a batch of one it is image[0]" if image.shape[:1] == (1,) else ". For several, vmap over them",
        }
        raise InputError(f"expected one image [H, W, channels]; got shape {image.shape}{hint.get(image.ndim, '')}")
    preprocessing = getattr(owner, "preprocessing", None)
    whole = jnp.issubdtype(image.dtype, jnp.integer)
    if not jnp.issubdtype(image.dtype, jnp.floating) and (not whole or preprocessing is not None):
        raise InputError(
            f"expected a float image as the classifier wants it, got {image.dtype}; model.preprocess(photo) makes one"
        )
    count = image.shape[-1] if preprocessing is None else len(preprocessing.mean)
    if count not in (1, image.shape[-1]):
        raise InputError(f"this classifier takes images of {count} channels; got one of shape {image.shape}")
    if is_concrete(image) and image.is_fully_addressable:
        _check_numbers(np.asarray(image, np.float32), preprocessing)
        if whole:
            warn(
                f"the function is given this image as it is, {image.dtype} from {int(image.min())} to "
                f"{int(image.max())}. If it expects floats, or normalised ones, give it such an image"
            )
    return image


def check_layout(image: Num[Array, "H W channels"], regions: Any) -> None:
    """Raises InputError for an image whose channels come first, by its regions; warns of one that looks so."""
    height, width, channels = image.shape
    if np.shape(regions) == (width, channels) != (height, width):
        raise InputError(
            f"expected an image [H, W, channels] of regions {[width, channels]}; got shape {image.shape}, whose "
            "channels come first: give jnp.moveaxis(image, 0, -1) and a function of images [C, H, W, channels]"
        )
    if height <= 16 and height < min(width, channels):
        warn(
            f"the image of shape {image.shape} is taken as {height} x {width} pixels of {channels} channels. If its "
            "channels come first, give jnp.moveaxis(image, 0, -1) and a function of images [C, H, W, channels]"
        )


def _as_array(image: Any) -> Array:
    try:
        return jnp.asarray(image)
    except TypeError as error:
        raise InputError(
            f"expected an image of numbers [H, W, channels]; got {type(image).__name__} ({str(error).splitlines()[0]})"
        ) from None


def _check_numbers(image: np.ndarray, preprocessing: Any) -> None:
    """Raises InputError for an image with NaN or infinity; warns of one that the preprocessing cannot have made."""
    broken = int((~np.isfinite(image)).sum())
    if broken:
        raise InputError(f"expected an image of finite numbers; {broken} of its {image.size} are NaN or infinite")
    if preprocessing is None or image.shape[-1] != len(preprocessing.mean):
        return
    dark, bright = (
        (np.asarray(pixel * preprocessing.rescale_factor + preprocessing.offset) - preprocessing.mean)
        / preprocessing.std
        for pixel in (0, 255)
    )
    low, high = image.min((0, 1)), image.max((0, 1))
    slack = 0.05 * (bright - dark)  # resampling by a caller's own means overshoots a little
    told = f"this image has values from {low.min():.4g} to {high.max():.4g}; this classifier's preprocessing makes "
    told += f"values from {dark.min():.4g} to {bright.max():.4g}"
    if (low < dark - slack).any() or (high > bright + slack).any():
        warn(f"{told}. Make the image by model.preprocess(photo), of the photo as it is, 0 to 255")
    elif (dark < -0.5).all() and low.min() >= 0 and 0.5 < high.max() <= 1:
        warn(f"{told}. It looks like a photo from 0 to 1 that was not normalised: use model.preprocess(photo)")


def link_of(owner: Any, link: Link | None) -> Link:
    """The link asked for, or the classifier's own, or that of most functions."""
    return check_link(getattr(owner, "link", "softmax") if link is None else link)


def check_fits(payoff: Payoff, link: Link) -> None:
    """Raises InputError for a payoff that a classifier with this link does not have."""
    if payoff == "logit" and link == "probabilities":
        raise InputError(
            'the payoff "logit" is a model\'s own number before the softmax, and link="probabilities" says that it '
            'returns probabilities; use "log_prob" or "log_odds"'
        )


def check_target(target: Any, owner: Any) -> Int[Array, ""]:
    """The class as int32[]; 0 for None, until the model has been asked."""
    if target is None:
        return jnp.int32(0)
    if isinstance(target, str):
        find = getattr(owner, "find_class", None)
        if find is None:
            raise InputError(
                f"expected the target as a class index, for a function of images has no class names; got {target!r}. "
                "Give the index, or None for the class that the model answers"
            )
        target = find(target)
    target = jnp.asarray(target)
    if target.shape != () or not jnp.issubdtype(target.dtype, jnp.integer):
        raise InputError(
            "expected the target as one class index, the name of a Classifier's class, or None; got "
            f"{target.dtype} of shape {target.shape}"
        )
    if is_concrete(target) and target < 0:
        raise InputError(f"expected a class index of at least 0; got {int(target)}")
    return target.astype(jnp.int32)
