"""`jaxmoxi explain --method discriminate`: the library's two phases, in words and in files."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.errors import InputError
from support.explain import CLASSES, read


def expected(folder, photo, target):
    model = jm.models.load(folder)
    v = jm.token_value_fn(model, model.preprocess(Image.open(photo)), target)
    return jm.discriminate(v, dataclasses.replace(v, target=jnp.int32(0)), 16, insertion=True)


@pytest.mark.parametrize("target", [1, 2])
def test_is_the_librarys_search(run, folder, photo, target):
    name = CLASSES[target]
    code, out, err, base = run("--method", "discriminate", "--target", name)
    found = expected(folder, photo, target)
    arrays, record = read(base.with_name("cat-discriminate"))
    removed, needed = int(found.num_removed), int(found.num_needed)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(arrays["removed"], found.removed)
    np.testing.assert_array_equal(arrays["needed"], found.needed)
    np.testing.assert_allclose(arrays["removing_target_values"], found.removing.target_values, rtol=1e-4)
    assert record["removed"] == found.removed[:removed].tolist()
    assert record["needed"] == found.needed[:needed].tolist()
    assert record["kept"] == np.flatnonzero(found.kept).tolist()
    assert (record["target"]["index"], record["prediction"]["index"]) == (target, 0)
    assert record["flipped"] is bool(found.flipped)
    assert len(record["removing"]["predicted_probabilities"]) == removed + 1
    assert record["answer"] in out
    assert (f"these {removed} of 16 regions {name!r} is the top class" in out) == (bool(found.flipped) and removed > 1)
    assert ("never becomes the top class, whatever is removed" in out) == (not bool(found.flipped))
    with Image.open(base.with_name("cat-discriminate.png")) as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "asks about a class that the model does not see in the photo: name it with --target"),
        (["--target", "tabby"], "--target: the model sees 'tabby' in the photo"),
        (["--target", "lynx", "--until", "3"], "give class, or a probability for it to reach"),
        (["--target", "lynx", "--until", "all"], "give class, or a probability for it to reach"),
        (["--target", "lynx", "--warm"], "--warm compiles ahead for --method insertion and deletion"),
        (["--target", "unicorn"], "--target: "),
    ],
)
def test_questions_that_it_does_not_answer(run, args, message):
    code, _, err, base = run("--method", "discriminate", *args)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not base.parent.exists() or not list(base.parent.iterdir())


def test_the_picture_of_either_second_phase_and_of_values_alone(unchecked):
    photo, regions = np.full((20, 30, 3), 90, np.uint8), np.arange(6).reshape(2, 3).repeat(10, 0).repeat(10, 1)
    weights = jnp.asarray([[3.0, 0, 0, 1, 0, 0], [0, 4, 1, 0, 0, 0]])
    for insertion in (False, True):
        found = jm.discriminate(lambda m: m @ weights[0], lambda m: m @ weights[1], 6, insertion=insertion)
        figure = jm.plot.discrimination(photo, regions, found, target="cat", predicted="dog", title="t")
        assert figure.axes[1].get_title() == "1 region removed"
        assert figure.axes[3].get_ylabel() == "payoff"
        assert "cat leads with 1 removed" in figure.axes[3].get_title()
        red = figure.axes[1].images[0].get_array()
        assert red[5, 15, 0] > 2 * red[5, 15, 1]  # player 1, and no other
        assert (red[5, 5] == 90).all()
    with pytest.raises(InputError, match="expected a Discrimination"):
        jm.plot.discrimination(photo, regions, np.arange(6))
    with pytest.raises(InputError, match="of one image of 1 regions"):
        jm.plot.discrimination(photo, np.zeros((20, 30), int), found)
