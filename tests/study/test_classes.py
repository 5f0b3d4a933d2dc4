"""Whether models are of the same classes, under whatever names."""

import dataclasses
import warnings

import pytest

from jaxmoxi.models.restriction import restrict
from jaxmoxi.study.classes import agreed_names
from support.study import tiny_classifier

NAMES = ("tench, Tinca tinca", "goldfish", "great white shark, white shark", "hen")


def named(*names):
    return dataclasses.replace(tiny_classifier("a"), class_names=names)


@pytest.mark.parametrize(
    ("other", "merged"),
    [
        (NAMES, NAMES),
        (("Tench", "goldfish, Carassius auratus", "white_shark", "hen"),
         (NAMES[0], "goldfish, Carassius auratus", *NAMES[2:])),
        (("n01440764 tench", "n01443537_goldfish", "great white shark", "hen"), NAMES),
        (("tench", "class 1", "LABEL_2", "003"), NAMES),
    ],
)  # fmt: skip
def test_classes_with_a_common_name_are_the_same(other, merged):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agreed_names({"a": named(*NAMES), "b": named(*other)}) == merged
        assert agreed_names({"a": named(*NAMES), "b": restrict(named(*other), [0, 2])}) == merged


def test_classes_without_names_are_taken_by_number_and_told():
    numbered = named(*(f"LABEL_{i}" for i in range(4)))
    with pytest.warns(UserWarning, match="^n: classes without names, taken by their numbers for those of a$"):
        assert agreed_names({"n": numbered, "a": named(*NAMES)}) == NAMES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agreed_names({"n": numbered, "m": numbered}) == numbered.class_names


def test_what_differs_is_named():
    with pytest.raises(ValueError, match="class 1 is 'goldfish' of a and 'hen' of b. If they are the same, give both"):
        agreed_names({"a": named(*NAMES), "b": named(NAMES[0], "hen", NAMES[2], "goldfish")})
    with pytest.raises(ValueError, match=r"same classes; a has 4 and b 3. To compare them on some .* restrict both"):
        agreed_names({"a": named(*NAMES), "b": named(*NAMES[:3])})
    with pytest.raises(ValueError, match="class 2 is 'LABEL_3' of a"):  # a number, of another class
        agreed_names({"a": named(*NAMES[:2], "LABEL_3", "hen"), "b": named(*NAMES)})
    with pytest.raises(ValueError, match="expected at least one model; got none"):
        agreed_names({})


def test_it_does_not_matter_in_which_order_models_come():
    names = {"a": named("x", "fish", "hen", "cat"), "b": named("y", "fish", "hen", "cat")}
    both = {"c": named("x, y", "fish", "hen", "cat")}
    for models in (names | both, both | names, {"a": names["a"], **both, "b": names["b"]}):
        assert sorted(agreed_names(models)[0].split(", ")) == ["x", "y"]
    with pytest.raises(ValueError, match="class 0 is 'x' of a and 'y' of b"):
        agreed_names(names)


def test_names_that_are_equal_need_say_nothing():
    assert (
        agreed_names({"a": named("n01440764_", "", "hen", "cat"), "b": named("n01440764_", "", "hen", "cat")})[1] == ""
    )
