"""SET-SUM: its labels, its digits, and the orders of its methods under a network that reads every digit."""

import importlib.util
import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[1] / "examples" / "set_sum.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("set_sum", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(digits):
    """Quadrants of one grey each, which tells the digit: float32[16, 16, 1]."""
    shades = (np.array(digits, np.float32) + 1) / 10
    return np.kron(shades.reshape(2, 2), np.ones((8, 8), np.float32))[..., None]


@jax.tree_util.Partial
def reader(images):
    """Logits of a network that reads such quadrants: highest at the sum of the distinct digits, falling beside it."""
    shades = jnp.round(10 * images[:, ::8, ::8, 0].reshape(-1, 4))
    there = (shades[..., None] == jnp.arange(1, 11)).any(1)
    return -2.0 * jnp.abs(jnp.arange(31) - (there @ jnp.arange(10))[:, None])


def test_a_digit_counts_once(example):
    for digits, visible, truth in (
        ([3, 3, 5, 7], [1, 1, 1, 1], 15),
        ([3, 3, 5, 7], [1, 0, 1, 1], 15),
        ([3, 3, 5, 7], [1, 1, 0, 1], 10),
        ([9, 6, 8, 7], [1, 1, 1, 1], 30),
        ([4, 4, 4, 4], [0, 0, 1, 0], 4),
        ([0, 2, 0, 2], [1, 1, 1, 1], 2),
        ([1, 2, 3, 4], [0, 0, 0, 0], 0),
    ):
        assert int(example.set_sum(np.array(digits), np.array(visible, bool))) == truth
        shown = plain(digits) * np.kron(np.reshape(visible, (2, 2)), np.ones((8, 8)))[..., None]
        assert int(reader(shown[None])[0].argmax()) == truth


def test_no_image_is_in_both_parts_and_none_twice_in_a_composite(example):
    images = [np.full((60 + d, 8, 8), 100 * d) + np.arange(60 + d)[:, None, None] for d in range(10)]
    learned, held_out = example.split(images, 3)
    assert learned.shape == (10, 10, 8, 8)
    assert held_out.shape == (10, 50, 8, 8)
    assert not np.intersect1d(learned, held_out).size
    for kind, (pattern, *_) in enumerate(example.KINDS.values()):
        image, shown = example.compose(jax.random.key(kind), jnp.asarray(held_out), kind)
        numbers = np.asarray(image)[::8, ::8, 0].ravel()
        assert len(set(numbers)) == 4
        np.testing.assert_array_equal(numbers // 100, shown)  # a quadrant shows the digit that is said of it
        assert sorted(np.unique(shown, return_counts=True)[1]) == sorted(np.unique(pattern, return_counts=True)[1])


@pytest.fixture(scope="module")
def found(example):
    digits = jnp.asarray(np.broadcast_to(np.arange(1, 11)[:, None, None, None] / 10, (10, 8, 8, 8)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4)
    return jax.device_get(
        {name: example.measure(keys[i], reader, digits, i, count=24) for i, name in enumerate(example.KINDS)}
    )


def test_moxi_avoids_the_copy_that_moxi_without_interactions_takes(example, found):
    assert all(each["reads"].all() for each in found.values())
    for kind, size in (("two pairs", 2), ("one pair", 3)):
        each = found[kind]
        rest = (each["shown"] > 0).all(1)
        shown = np.where(each["inserted"], each["shown"][:, None, None], -1)[rest]  # [images, methods, sizes, digits]
        distinct = np.array([[len(set(row[size]) - {-1}) for row in rows] for rows in shown])
        assert rest.sum() > 8
        assert (distinct[:, 0] == size).all()  # MoXI shows other digits
        assert each["accuracy"][rest, 0, size].all()
        if kind == "two pairs":  # where MoXI(-) shows the larger digit twice, which is nearer to the sum
            assert (distinct[:, 1] == 1).all()
            assert not each["accuracy"][rest, 1, size].any()
    assert (found["four distinct"]["accuracy"][:, :, 4]).all()


@pytest.mark.filterwarnings("ignore:.*players have the score of another")
def test_the_third_order_is_by_shapley_values(example):
    image = plain([6, 2, 6, 6])
    orders, _ = example.explain(reader, image, 8)
    says = np.asarray(jax.nn.softmax(reader(image * example.COALITIONS[:, example.REGIONS, None]))[:, 8], float)
    v = np.log(says) - np.log1p(-says)
    values = np.zeros(4)
    for order in permutations(range(4)):
        here = 0
        for player in order:
            values[player] += (v[here | 1 << player] - v[here]) / 24
            here |= 1 << player
    assert abs(values[1] - values[0]) > 0.1
    np.testing.assert_allclose(values[np.asarray(orders[2])], np.sort(values)[::-1], atol=1e-3)


def test_tables_and_picture(example, found, tmp_path):
    results = [example.summaries(found), example.summaries(found)]
    lines = example.tables(results).splitlines()
    row = next(line for line in lines if line.startswith("| two pairs | MoXI |"))
    assert [row.split("|")[7 + k].strip() for k in (1, 2, 3)] == ["100.0"] * 3  # accuracy at 50, 75 and 100 %
    mixed = example.curves(results, example.MIX, "MoXI(-)", "accuracy")[0]
    each = [np.array(results[0][kind]["MoXI(-)"]["accuracy"]) for kind in ("one pair", "two pairs", "three alike")]
    np.testing.assert_allclose(mixed, 100 * (4320 * each[0] + 270 * each[1] + 360 * each[2]) / 4950, rtol=1e-5)
    example.draw(results, found).savefig(tmp_path / "out.png")
    assert min(Image.open(tmp_path / "out.png").size) > 900


def test_digits_are_told_apart(example, monkeypatch):
    images = example.drawn(20)
    assert all(each.shape == (20, 8, 8) and 0 <= each.min() < each.max() <= 1 for each in images)
    means = np.stack([each[:10].mean(0) for each in images])
    nearest = [((each[10:, None] - means) ** 2).sum((2, 3)).argmin(1) for each in images]
    assert np.mean([row == digit for digit, row in enumerate(nearest)]) > 0.6
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit, match="jaxmoxi\\[digits\\]"):
        example.handwritten()


@pytest.mark.slow
@pytest.mark.parametrize("digits", ["handwritten", "drawn"])
def test_a_trained_network_shows_it(tmp_path, digits):
    command = [sys.executable, EXAMPLE, "--seeds", "0", "--steps", "1500", "--count", "100", "--digits", digits]
    subprocess.run([*command, "--out", tmp_path], check=True, timeout=500)
    found = json.loads((tmp_path / "set_sum.json").read_text())["results"][0]
    for kind in ("two pairs", "three alike"):
        confidence = {method: found[kind][method]["confidence"] for method in ("MoXI", "MoXI(-)")}
        assert confidence["MoXI"][2] > confidence["MoXI(-)"][2] + 0.1
        assert confidence["MoXI"][4] == confidence["MoXI(-)"][4] > 0.5
