"""Is an explanation steady where the model is, and does it follow the model's weights?

Sources: Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019
(*max-sensitivity*); Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity Checks for Saliency Maps", NeurIPS 2018
(*model-parameter randomisation*).

Both explain again and again, so a study does not measure them: call them for the photos that matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.guards import deliberate
from jaxmoxi.models.networks.base import NetworkConfig, image_shape
from jaxmoxi.pytrees import is_array, record, static
from jaxmoxi.types import AnyArray

Scores = Float[AnyArray, "P"]


@deliberate
def max_sensitivity(
    key: RandomKey,
    explain: Callable[[Float[Array, "H W channels"]], Scores],
    image: Float[AnyArray, "H W channels"],
    *,
    radius: float = 0.02,
    num_samples: int = 10,
) -> Float[Array, ""]:
    """The largest change of the scores under small noise on the image, over their own size, float32[]; lower is better.

    With phi = explain(image), the largest ||explain(image + noise) - phi|| / ||phi|| in the Euclidean norm, of
    `num_samples` draws of noise, uniform in [-radius, radius] for every number of the image.

    key:     a JAX random key; one key gives every method the same noise.
    explain: image -> scores float32[P], as `lambda x: jm.attribution.rise(key, problem(model, x, target, regions))`.
             It is called num_samples + 1 times, from the host; what is random in it should have a fixed key.
    image:   float32[H, W, channels], as the model wants it (normalised); radius is in its units, above 0.

    NaN where all scores of the image are 0.
    Source: Yeh et al. 2019, definition 2.2, by sampling, relative as in captum's `sensitivity_max`.
    """
    image = jnp.asarray(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(f"expected a float image, to which noise can be added; got {image.dtype}")
    if not radius > 0 or num_samples < 1:
        raise InputError(f"expected a radius above 0 and num_samples of at least 1; got {radius} and {num_samples}")
    own = _scores(explain(image))
    size = np.linalg.norm(own)
    moved = []
    for one in jax.random.split(key, num_samples):
        noise = jax.random.uniform(one, image.shape, image.dtype, -radius, radius)
        moved.append(np.linalg.norm(_scores(explain(image + noise), like=own) - own))
    return jnp.float32(max(moved) / size if size > 0 else np.nan)


@record
class Randomisation:
    """What `parameter_randomisation` found. L layers, from the output to the input.

    similarity: float32[L] in [-1, 1], Spearman's rank correlation of the scores with those of the model as it is, after
                each layer (and, cascading, all before it in this list) was randomised. Low is good: an explanation that
                stays the same does not depend on what the model has learnt. NaN where all scores are equal.
    layers:     static, the names of the layers.
    """

    similarity: Float[Array, "L"]
    layers: tuple[str, ...] = static()


@deliberate
def parameter_randomisation(
    key: RandomKey,
    explain: Callable[[Any], Scores],
    model: Any,
    *,
    order: Literal["cascading", "independent"] = "cascading",
    absolute: bool = False,
    images: Float[AnyArray, "B H W channels"] | None = None,
) -> Randomisation:
    """The sanity check by model-parameter randomisation: do the scores change when the weights are destroyed?

    explain:  model -> scores float32[P], as `lambda model: METHODS["rise"].explain(key, problem(model, ...))`. It is
              called once for every layer and once more.
    model:    a pytree, such as a Classifier. A layer is the arrays that share a place in it but for the last name
              (`conv1.kernel`, `conv1.bias`); layers that a network keeps stacked, as a transformer's, count as one.
    order:    "cascading" randomises the layers from the output down, each on top of those before; "independent" one at
              a time.
    absolute: compare absolute scores, for explanations whose sign means nothing.
    images:   of the model's size, from which the order of the layers is read off its program; None means a black image
              of `model.config.image_size` (a Classifier's).

    Randomised are the values of an array among themselves: it keeps its mean and spread. Layers of one value stay.
    Deviation: Adebayo et al. draw initial weights anew; this keeps the scale of what was learnt, so that normalisation
    and range of the logits change less, and needs no initialiser.
    Raises ValueError for a model without arrays, and another `order`.
    """
    if order not in ("cascading", "independent"):
        raise InputError(f'expected order of "cascading" or "independent"; got {order!r}')
    leaves, treedef = jax.tree.flatten(model)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(model)[0]]
    layers = _layers(model, leaves, paths, images)
    own = _scores(explain(model))
    now, similarity = list(leaves), []
    for name, places in layers.items():
        now = list(now if order == "cascading" else leaves)
        for place in places:
            shuffled = jax.random.permutation(jax.random.fold_in(key, place), jnp.ravel(leaves[place]))
            now[place] = shuffled.reshape(jnp.shape(leaves[place]))
        scores = _scores(explain(jax.tree.unflatten(treedef, now)), like=own, name=name)
        similarity.append(rank_correlation(np.abs(own) if absolute else own, np.abs(scores) if absolute else scores))
    return Randomisation(jnp.asarray(similarity, jnp.float32), tuple(layers))


def rank_correlation(a: Float[np.ndarray, "P"], b: Float[np.ndarray, "P"]) -> float:
    """Spearman's rank correlation, equal numbers sharing their mean rank; NaN where all of one are equal."""
    ranks = [np.searchsorted(np.sort(x), x, "left") + np.searchsorted(np.sort(x), x, "right") for x in (a, b)]
    x, y = (r - r.mean() for r in ranks)
    power = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / power) if power > 0 else float("nan")


def _scores(scores: Any, *, like: np.ndarray | None = None, name: str = "") -> Float[np.ndarray, "P"]:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or (like is not None and scores.shape != like.shape):
        raise InputError(
            f"expected explain to return scores float32[P]{'' if like is None else f', P = {len(like)}'}; "
            f"got shape {scores.shape}"
        )
    if np.isnan(scores).any():
        raise InputError(f"explain returned NaN{f' after the layer {name} was randomised' if name else ''}")
    return scores


def _layers(model: Any, leaves: list[Any], paths: list[Any], images: Any) -> dict[str, list[int]]:
    """The places of each layer's leaves by its name, from the output to the input."""
    arrays = [i for i, leaf in enumerate(leaves) if is_array(leaf) and np.size(leaf) > 1]
    if not arrays:
        raise InputError("expected a model with arrays among its leaves, such as a Classifier; got one without")
    used = _first_uses(model, images, len(leaves))
    layers: dict[str, list[int]] = {}
    for i in sorted(arrays, key=lambda i: -used[i]):
        layers.setdefault(_layer_name(paths[i]), []).append(i)
    return layers


def _layer_name(path: Any) -> str:
    """The place of a leaf in the model, but for its last name (and what NNX wraps around a value)."""
    names = [str(getattr(part, "name", getattr(part, "key", getattr(part, "idx", part)))) for part in path]
    names = [name for name in names if name not in ("value", "raw_value", "params")]
    return ".".join(names[:-1]) or (names[-1] if names else "model")


def _first_uses(model: Any, images: Any, count: int) -> list[int]:
    """Where in the model's program each leaf is first used: later is nearer to the output."""
    if images is None:
        config = getattr(model, "config", None)
        if not isinstance(config, NetworkConfig):
            raise InputError("expected images, from which the order of the layers can be read; this model has no size")
        images = jnp.zeros((1, *image_shape(config)))
    logits = getattr(type(model), "logits", None)
    program = jax.make_jaxpr(lambda m, x: m(x) if logits is None else logits(m, x))(model, jnp.asarray(images))
    places = {id(variable): i for i, variable in enumerate(program.jaxpr.invars[:count])}
    used = [0] * count
    _walk(program.jaxpr, places, used, [0])
    return used


def _walk(jaxpr: Any, places: dict[int, int], used: list[int], clock: list[int]) -> None:
    """Notes the time of each first use, going into calls and loops."""
    for equation in jaxpr.eqns:
        clock[0] += 1
        given = [(i, places[id(x)]) for i, x in enumerate(equation.invars) if id(x) in places]
        for _, place in given:
            used[place] = used[place] or clock[0]
        values = [
            v for value in equation.params.values() for v in (value if isinstance(value, tuple | list) else [value])
        ]
        for value in values:
            inner = getattr(value, "jaxpr", value)
            # A branch is not given the index by which it is chosen, the first of the equation's operands.
            skipped = len(equation.invars) - len(inner.invars) if hasattr(inner, "eqns") else -1
            if given and skipped in (0, 1):
                for _, place in given:
                    used[place] = 0  # the time inside says more
                _walk(inner, {id(inner.invars[i - skipped]): place for i, place in given if i >= skipped}, used, clock)
                for _, place in given:
                    used[place] = used[place] or clock[0]
