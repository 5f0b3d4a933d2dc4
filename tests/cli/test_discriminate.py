"""`jaxmoxi explain --method discriminate`: the library's two phases, in words and in files."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli.discriminate import describe_rival
from jaxmoxi.types import Stop
from support.explain import CLASSES, read, searched_for, words_only


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
    assert ("was not found to become the top class, removing one" in out) == (not bool(found.flipped))
    with Image.open(base.with_name("cat-discriminate.png")) as picture:
        assert picture.width > 1000


def test_the_answer_in_words():
    def words(chances, needed, stop=None):
        task = words_only(num_players=4, target=0, top=1, stop=stop or Stop(flip=True))
        return describe_rival(task, searched_for(chances, needed))

    answer = words([0.2, 0.7], 2)
    assert answer == (
        "without this 1 of 4 regions 'cat' is the top class (70 %, 'dog' 30 %); of the others, these 2 alone are "
        "enough for it (60 %)"
    )
    assert "the same holds with every region hidden" in words([0.2, 0.3, 0.6], 0)
    assert words([0.2, 0.3, 0.3, 0.4, 0.6], 0) == (
        "'cat' is the top class with every region hidden, and not before (60 %, 'dog' 40 %)"
    )
    never = "'cat' was not found to become the top class, removing one region after the other: at most 40 %, "
    assert words([0.2, 0.4, 0.1, 0.1, 0.1], None) == never + "without 1 of 4 regions"
    assert words([0.4, 0.3, 0.1, 0.1, 0.1], None) == never + "in the whole photo"
    assert words([0.2, 0.3, 0.1, 0.1, 0.4], None) == never + "with every region hidden"
    level = Stop(probability=0.3)
    assert words([0.3], 1, level).startswith("'cat' is as sure as that in the whole photo (30 %, 'dog' 70 %); of the")
    assert words([0.1, 0.4], 1, level).startswith("without this 1 of 4 regions 'cat' reaches 30 % (40 %, 'dog' 60 %)")


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
