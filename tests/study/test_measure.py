"""One photo: what is measured of it, and with which model."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from jaxmoxi.attribution import METHODS
from jaxmoxi.study import measure_photo, read_photo, run_study, setting
from jaxmoxi.study.photos import read_mask
from support.attribution import cnn_model
from support.study import tiny_config


@pytest.mark.slow
def test_devices_change_nothing_but_rounding(models, photos):
    picture = read_photo(photos / "blue" / "2.png")
    key, config = jax.random.key(3), tiny_config(methods=("gradient", "moxi", "rise"))
    mesh = jax.make_mesh((2,), ("devices",))
    one = measure_photo(key, setting(models["tiny"], config), picture, label=2)
    two = measure_photo(key, setting(models["tiny"], config, mesh=mesh), picture, label=2)
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4, atol=1e-4)
    for records in zip(one.lines + one.numbers, two.lines + two.numbers, strict=True):
        (*names, first), (*same, second) = records
        assert str(names) == str(same)
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4, err_msg=str(names))


def test_boxes_are_where_the_model_sees_them(models, photos):
    picture = read_photo(photos / "blue" / "2.png")  # 24 x 20, squashed to 16 x 16
    config = tiny_config(metrics=("localisation",))
    boxes = np.float32([[0, 0, 24, 10]])  # the upper half: the first of two rows of regions
    out = measure_photo(jax.random.key(0), setting(models["tiny"], config), picture, label=2, boxes=boxes)
    best = out.orders[:, 0, 0]
    hits = [number.value for number in out.numbers if number.column == "pointing game"]
    np.testing.assert_array_equal(hits, (best < 4).astype(np.float32))
    assert 0 < sum(hits) < len(best)


def test_masks_are_where_the_model_sees_them(models, photos, tmp_path):
    """A mask of the upper half says what a box of the upper half says, whatever its bright value."""
    picture = read_photo(photos / "blue" / "2.png")
    task = setting(models["tiny"], tiny_config(metrics=("localisation",)))
    drawn = np.zeros((20, 24), np.uint8)
    drawn[:10] = 1
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    box = measure_photo(jax.random.key(0), task, picture, label=2, boxes=np.float32([[0, 0, 24, 10]]))
    mask = read_mask(tmp_path / "mask.png", picture.size)
    out = measure_photo(jax.random.key(0), task, picture, label=2, mask=mask)
    assert [number[:-1] for number in out.numbers] == [number[:-1] for number in box.numbers]
    np.testing.assert_allclose([n.value for n in out.numbers], [n.value for n in box.numbers], atol=1e-6)


@pytest.mark.slow
def test_chunks_change_nothing_but_rounding(models, photos):
    photo = read_photo(photos / "red" / "0.png")
    one, other = (
        measure_photo(jax.random.key(0), setting(models["tiny"], tiny_config(), batch_size=size), photo, label=0)
        for size in (None, 3)
    )
    np.testing.assert_array_equal(one.orders, other.orders)
    for first, second in zip(one.lines, other.lines, strict=True):
        np.testing.assert_allclose(first.values, second.values, atol=1e-6)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        setting(models["tiny"], tiny_config(), batch_size=0)


def test_a_model_without_tokens_leaves_out_their_removal():
    config = tiny_config(methods=("moxi", "attention-rollout"), removals=("tokens", "mean"))
    task = setting(cnn_model(), config)
    assert (task.methods, task.removals, task.masking) == (("moxi",), ("mean",), "zero")
    with pytest.raises(ValueError, match="tiny has no tokens to remove"):
        setting(cnn_model(), dataclasses.replace(config, removals=("tokens",)))


def test_a_mistake_inside_a_methods_check_is_not_taken_for_a_model_it_does_not_fit(models, monkeypatch):
    def fail(self, problem):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(type(METHODS["random"]), "applies", fail)
    with pytest.raises(ValueError, match="operands could not be broadcast together"):
        setting(models["tiny"], tiny_config())


@pytest.mark.slow
def test_superpixels_differ_in_number_and_are_studied_all_the_same(models, photos, tmp_path):
    settings = dict(methods=("random", "gradient"), metrics=("curves", "road"), masking="zero", sizes=4, num_photos=2)
    run_study(photos, models, tmp_path / "out", tiny_config(regions="slic:6", **settings), progress=False)
    assert "2 ok" in (tmp_path / "out" / "report.md").read_text()
