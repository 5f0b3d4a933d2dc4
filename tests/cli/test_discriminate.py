"""`jaxmoxi explain --method discriminate`: the library's two phases, in words and in files."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli.discriminate import describe_rival
from jaxmoxi.errors import InputError
from jaxmoxi.types import Discrimination, Stop, TwoClasses
from support.explain import CLASSES, read, words_only


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


def found_with(chances, needed):
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


def test_the_answer_in_words():
    def words(chances, needed, stop=None):
        task = words_only(num_players=4, target=0, top=1, stop=stop or Stop(flip=True))
        return describe_rival(task, found_with(chances, needed))

    answer = words([0.2, 0.7], 2)
    assert answer == (
        "without this 1 of 4 regions 'cat' is the top class (70 %, 'dog' 30 %); of the others, these 2 alone are "
        "enough for it (60 %)"
    )
    assert "the same holds with every region hidden" in words([0.2, 0.3, 0.6], 0)
    assert words([0.2, 0.3, 0.3, 0.4, 0.6], 0) == (
        "'cat' is the top class with every region hidden, and not before (60 %, 'dog' 40 %)"
    )
    never = "'cat' never becomes the top class, whatever is removed: at most 40 %, "
    assert words([0.2, 0.4, 0.1, 0.1, 0.1], None) == never + "without 1 of 4 regions"
    assert words([0.4, 0.3, 0.1, 0.1, 0.1], None) == never + "in the whole photo"
    assert words([0.2, 0.3, 0.1, 0.1, 0.4], None) == never + "with every region hidden"
    level = Stop(probability=0.3)
    assert words([0.3], 1, level).startswith("'cat' is as sure as that in the whole photo (30 %, 'dog' 70 %); of the")
    assert words([0.1, 0.4], 1, level).startswith("without this 1 of 4 regions 'cat' reaches 30 % (40 %, 'dog' 60 %)")


def test_the_picture_of_a_target_that_never_leads_shows_where_it_is_nearest():
    photo, regions = np.full((20, 20, 3), 90, np.uint8), np.arange(4).reshape(2, 2).repeat(10, 0).repeat(10, 1)
    figure = jm.plot.discrimination(photo, regions, found_with([0.2, 0.4, 0.1, 0.1, 0.1], None), target="cat")
    assert figure.axes[1].get_title().startswith("1 region removed\ncat: 40 %")
    assert figure.axes[2].get_title() == "cat is at its highest there,\nand never reaches the goal"
    red = figure.axes[1].images[0].get_array()[..., 0] > 150
    assert red[:10, :10].all()
    assert not red[10:].any()
    assert figure.axes[3].get_title() == ""


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
