"""A model folder for `jaxmoxi explain`, what the command wrote, and what the library finds on the same photo."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

import jaxmoxi as jm
from jaxmoxi.cli.task import Task
from jaxmoxi.models.networks import vit
from jaxmoxi.types import Discrimination, TwoClasses
from support.games import golden_tensor

CLASSES = ("tabby, tabby cat", "Egyptian cat", "lynx", "tiger", "lion")


def write_model(path, **replace):
    config = vit.VisionTransformerConfig(
        image_size=32, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_dim=64, num_classes=5
    )
    shapes = vit.expected_tensors(config, "vit")
    tensors = {name: golden_tensor("cli8", name, shape, 0.7) for name, shape in shapes.items()}
    # So that the first class leads the whole photo, is behind when nothing is visible, and takes two patches to lead.
    tensors["classifier.weight"] *= 3
    tensors["classifier.bias"][0] -= 2.52
    save_file(tensors | replace, path / "model.safetensors")
    settings = {
        "model_type": "vit",
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "id2label": {str(i): name for i, name in enumerate(CLASSES)},
    }
    (path / "config.json").write_text(json.dumps(settings))
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))


def read(base):
    with np.load(f"{base}.npz", allow_pickle=False) as file:
        return dict(file), json.loads(base.with_name(f"{base.name}.json").read_text())


def search(
    folder, photo, method, *, masking="tokens", target=None, regions=None, stop=None, payoff="log_odds", fill=0.0
):
    """What the command should have found, by the library."""
    model = jm.models.load(folder)
    image = model.preprocess(Image.open(photo))
    target = int(jnp.argmax(jax.jit(type(model).logits)(model, image[None])[0])) if target is None else target
    if masking == "tokens":
        v = jm.token_value_fn(model, image, target, regions, payoff=payoff)
        players = 16 if regions is None else jm.count_regions(regions)
    else:
        v = jm.pixel_value_fn(model.logits, image, target, regions, fill=fill, payoff=payoff)
        players = jm.count_regions(regions)
    return (jm.greedy_insertion if method == "insertion" else jm.greedy_deletion)(v, players, stop=stop)


def words_only(**fields):
    """A task of two classes, cat and dog, of which only the fields given are known: enough for its words."""
    blank = dict.fromkeys(Task._fields) | {"model": SimpleNamespace(class_names=("cat", "dog"), link="softmax")}
    return Task(**blank | fields)


def searched_for(chances, needed):
    """A result whose target has these probabilities while 0, 1, ... of 4 regions are removed."""

    def along(rows):
        row = np.full(5, np.nan, np.float32)
        row[: len(rows)] = rows
        row = jnp.asarray(row)
        return TwoClasses(row, 1 - row, row, 1 - row, row > 0.5)

    removed, searched = len(chances) - 1, needed is not None
    return Discrimination(
        removed=jnp.arange(4), needed=jnp.arange(4)[::-1], num_removed=jnp.int32(removed),
        num_needed=jnp.int32(needed or 0), kept=jnp.arange(4) >= removed, flipped=jnp.bool_(chances[-1] > 0.5),
        removing=along(chances), needing=along([0.6] * (needed + 1) if searched else []),
        num_evaluations=jnp.int32(9), nan_player=jnp.int32(-1), insertion=True,
    )  # fmt: skip
