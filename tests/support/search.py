"""Games with every value known, games with gates, and games of a tiny model, for the searches."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoxi as jm
from jaxmoxi.models.networks import vit
from jaxmoxi.pytrees import record
from jaxmoxi.types import Readout
from support.games import lookup, vit_classifier


@record
class TableGame:
    """Any game at all: a value for every coalition, and the class leads where it is positive."""

    table: jax.Array

    def __call__(self, masks):
        return lookup(self.table, masks)

    def readout(self, masks):
        values = self(masks)
        return Readout(values, values > 0, jax.nn.sigmoid(values))


def any_game(num_players, seed, bias=-0.5):
    """Noise, worth more the more is visible; everybody is enough, nobody is not."""
    table = np.random.default_rng(seed).normal(size=2**num_players).astype(np.float32)
    size = np.array([bin(i).count("1") for i in range(2**num_players)])
    table = table + np.float32(bias) + (size / num_players).astype(np.float32)
    table[0], table[-1] = -1, 2
    return TableGame(jnp.asarray(table)), table


@record
class GatedLinear:
    """Players that add up, with gates."""

    weights: jax.Array

    def __call__(self, masks):
        return self.relaxed(masks.astype(jnp.float32))

    def relaxed(self, gates):
        return gates @ self.weights


def number(group):
    return int(np.asarray(group) @ 2 ** np.arange(len(group)))


def everybody(num_players):
    return np.array(list(itertools.product([False, True], repeat=num_players)))


def smallest(table, num_players, insertion=True):
    """The size of the smallest group that is enough, by trying all."""
    groups = everybody(num_players)
    shown = groups if insertion else ~groups
    positive = table[shown @ 2 ** np.arange(num_players)] > 0
    return groups[positive == insertion].sum(1).min()


def enough(table, group, insertion=True):
    group = np.asarray(group)
    return (table[number(group if insertion else ~group)] > 0) == insertion


def games(tiny):
    model, image = tiny
    regions = jm.grid_regions(32, 32, rows=4, cols=4)
    blocks = jm.grid_regions(32, 32, rows=2, cols=2)
    yield jm.token_value_fn(model, image, 2), 16
    yield jm.token_value_fn(model, image, 2, blocks), 4
    yield jm.pixel_value_fn(model.logits, image, 2, regions, fill="mean"), 16


@functools.cache
def tiny_model():
    config = vit.VisionTransformerConfig(
        image_size=32, patch_size=8, hidden_size=16, num_layers=3, num_heads=2, mlp_dim=32, num_classes=5
    )
    model = vit_classifier(config)
    return model, jax.random.normal(jax.random.key(0), (32, 32, 3))


@functools.cache
def small_model():
    """A transformer of 2 x 2 tokens, and an image in the range of its preprocessing: quick to compile."""
    config = vit.VisionTransformerConfig(
        image_size=8, patch_size=4, hidden_size=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=3
    )
    return vit_classifier(config), jax.random.uniform(jax.random.key(0), (8, 8, 3), minval=-1, maxval=1)
