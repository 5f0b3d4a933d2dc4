"""Games small enough for brute force, and checkpoints made from a name."""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import vit
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.pytrees import record, static
from jaxmoxi.types import Readout

GOLDEN = Path(__file__).parents[1] / "golden"


def lookup(table, masks):
    """A game given by the value of every coalition: entry sum of 2^i over the visible players i."""
    return table[masks @ (2 ** jnp.arange(masks.shape[1]))]


def table_game(num_players, seed=0):
    """Values with no symmetry at all, as (value function, table of 2^P values)."""
    table = np.random.default_rng(seed).normal(size=2**num_players).astype(np.float32)
    return jax.tree_util.Partial(lookup, jnp.asarray(table)), table


def every_coalition(num_players=6):
    return np.array(list(itertools.product([False, True], repeat=num_players)))


def index(players):
    return sum(2**p for p in players)


def brute_greedy(table, num_players, insertion):
    """Greedy by the paper's formula, value + interaction with the group as one player, in plain Python."""
    everyone = frozenset(range(num_players))
    v = {
        frozenset(s): float(table[index(s)])
        for k in range(num_players + 1)
        for s in itertools.combinations(everyone, k)
    }
    group, order, values = frozenset(), [], []
    for _ in range(num_players):
        merits = {}
        for b in sorted(everyone - group):
            one = frozenset([b])
            if insertion:
                value = v[one] - v[frozenset()]
                interaction = v[group | one] - v[group] - v[one] + v[frozenset()]
                merits[b] = value + interaction
            else:
                value = v[everyone] - v[everyone - one]
                interaction = v[everyone] - v[everyone - group] - v[everyone - one] + v[everyone - group - one]
                merits[b] = value - interaction
        best = max(merits, key=merits.get)
        group |= {best}
        order.append(best)
        values.append(v[group if insertion else everyone - group])
    return order, values


def exact_shapley(table, num_players):
    """The Shapley value by its definition: the mean over all orders."""
    orders = list(itertools.permutations(range(num_players)))
    phi = np.zeros(num_players)
    for order in orders:
        for k, player in enumerate(order):
            phi[player] += table[index(order[: k + 1])] - table[index(order[:k])]
    return phi / len(orders)


@record
class SizedGame:
    """A linear game that checks the promise: a row that shows more than `max_visible` players is worth NaN."""

    weights: jax.Array
    sized: bool = static(default=True)

    def __call__(self, masks, *, max_visible=None):
        values = masks @ self.weights
        return values if max_visible is None else jnp.where(masks.sum(1) <= max_visible, values, jnp.nan)


@record
class ThresholdGame:
    """A linear game whose class leads, with probability sigmoid(value), once its value is positive."""

    weights: jax.Array
    bias: jax.Array

    def __call__(self, masks):
        return masks @ self.weights + self.bias

    def readout(self, masks):
        values = self(masks)
        return Readout(values, values > 0, jax.nn.sigmoid(values))


def golden_tensor(tag, name, shape, gain):
    """A tensor rebuilt from its name; see golden/README.md."""
    z = np.random.Generator(np.random.PCG64(zlib.crc32(f"{tag}:{name}".encode()))).standard_normal(shape)
    z = z.astype(np.float32)
    leaf = name.split(".")[-1]
    if leaf == "bias":
        return np.float32(0.1) * z
    if leaf in ("cls_token", "position_embeddings"):
        return np.float32(0.5) * z
    if len(shape) == 1:
        return 1 + np.float32(0.1) * z
    return np.float32(gain) * z / np.float32(np.sqrt(np.prod(shape[1:])))


def golden_models():
    return json.loads((GOLDEN / "moxi.json").read_text())


def golden_classifier(entry):
    config = vit.VisionTransformerConfig(
        image_size=entry["grid"] * entry["patch"],
        patch_size=entry["patch"],
        hidden_size=entry["hidden"],
        num_layers=entry["layers"],
        num_heads=entry["heads"],
        mlp_dim=entry["mlp"],
        num_classes=entry["classes"],
    )
    return vit_classifier(config, lambda name, shape: golden_tensor(entry["tag"], name, shape, entry["gain"]))


def vit_classifier(config, make=None):
    make = make or (lambda name, shape: golden_tensor("any", name, shape, 1.5))
    tensors = {name: make(name, shape) for name, shape in vit.expected_tensors(config, "vit").items()}
    return Classifier(
        params=jax.tree.map(jnp.asarray, vit.from_tensors(config, tensors, source="test")),
        config=config,
        preprocessing=Preprocessing.from_huggingface({}, config.image_size),
        class_names=tuple(f"class {i}" for i in range(config.num_classes)),
    )


def golden_image(entry):
    return jnp.asarray(np.array(entry["image"], np.float32) / 127.5 - 1)


class Notes(list):
    """A list that can be part of a pytree's structure."""

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other


@record
class TracedGame:
    """A linear game that notes the sizes it is traced for."""

    weights: jax.Array
    traced: Notes = static()
    sized: bool = static(default=True)

    def __call__(self, masks, *, max_visible=None):
        self.traced.append(max_visible)
        return masks @ self.weights
