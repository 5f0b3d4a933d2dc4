"""`jaxmoxi explain --method minimal|beam`: the library's groups, in words and in files."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli import estimate, groups
from jaxmoxi.errors import NoGroupError
from jaxmoxi.types import Stop
from support.explain import read, words_only


def game(folder, photo, target=0):
    model = jm.models.load(folder)
    return jm.token_value_fn(model, model.preprocess(Image.open(photo)), target)


FLIP = Stop(flip=True)


@pytest.fixture
def blank(monkeypatch):
    """The keywords of the picture, which is not drawn: it takes a second."""
    from matplotlib.figure import Figure

    seen = {}

    def draw(*args, **kwargs):
        seen.update(kwargs, groups=args[2])
        return Figure()

    monkeypatch.setattr(jm.plot, "groups", draw)
    return seen


def files(base, method):
    return read(base.with_name(f"cat-{method}"))


def test_minimal_is_the_librarys_group(run, folder, photo):
    code, out, err, base = run("--method", "minimal")
    expected = jm.search.minimal_group(game(folder, photo), 16)
    arrays, record = files(base, "minimal")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(arrays["groups"], expected.group[None])
    assert record["group"] == arrays["group"].tolist() == np.flatnonzero(expected.group).tolist()
    assert record["num_evaluations"] == int(expected.num_evaluations)
    np.testing.assert_allclose(record["values"][0], expected.value, rtol=1e-4)
    assert record["leads"] == [True]
    assert record["method"] == "minimal"
    assert f"these {int(expected.size)} of 16 regions are enough for 'tabby', " in out
    assert "and none of them can be left out" in out
    with Image.open(base.with_name("cat-minimal.png")) as picture:
        assert picture.width > 800


def test_a_connected_group_is_told_in_pieces(run, folder, photo):
    code, out, err, base = run("--method", "minimal", "--connected", "--until", "0.3")
    expected = jm.search.minimal_group(game(folder, photo), 16, probability=0.3, connected=True)
    arrays, record = files(base, "minimal")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(arrays["groups"], expected.group[None])
    assert record["connected"]
    assert record["pieces"] == int(expected.pieces)
    assert record["share_of_image"] == pytest.approx(int(expected.size) / 16)
    told = jm.group_pieces(expected.group, jm.grid_regions(32, 32, rows=4, cols=4))
    assert f", in {told}" in out
    with Image.open(base.with_name("cat-minimal.png")) as picture:
        assert picture.width > 1200
    code, _, err, _ = run("--method", "beam", "--connected")
    assert code != 0
    assert "--connected is of --method minimal and robust; --method beam looks for no connected group" in err


def test_beam_finds_groups_without_a_region_in_common(run, folder, photo, blank):
    code, out, _, base = run("--method", "beam", "--until", "0.3")
    expected = jm.search.beam_search(game(folder, photo), 16, stop=Stop(probability=0.3), num_groups=3)
    arrays, record = files(base, "beam")
    assert code == 0
    np.testing.assert_array_equal(arrays["groups"], expected.minimal)
    np.testing.assert_array_equal(arrays["best_of_each_size"], expected.groups)
    assert (arrays["groups"].sum(0) <= 1).all()
    assert len(record["groups"]) == len(record["probabilities"]) == len(blank["titles"])
    assert all(chance >= 0.3 for chance in record["probabilities"])
    assert len(record["groups"]) == 1 or "; so " in out


def test_beam_of_a_number_of_regions_looks_at_every_size(run, folder, photo, blank):
    code, out, _, base = run("--method", "beam", "--until", "2", "--target", "lynx", "--quiet")
    expected = jm.search.beam_search(game(folder, photo, 2), 16, max_size=2)
    arrays, record = files(base, "beam")
    assert code == 0
    np.testing.assert_array_equal(arrays["best_of_each_size"], expected.groups)
    assert [len(group) for group in record["groups"]] == [2, 1, 0]
    assert out.startswith("of all groups looked at, these 2 of 16 regions do most for 'lynx'")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "minimal", "--until", "3"], "--until: --method minimal looks for the smallest group itself"),
        (["--method", "minimal", "--until", "all"], "give class, or a probability such as 0.9"),
        (["--method", "beam", "--until", "all"], "or a number of regions, whose best groups are then looked for"),
        (["--method", "minimal", "--until", "0.9999999"], "no group along the way reaches the goal"),
    ],
)
def test_goals_that_no_group_has(run, args, message):
    code, _, err, base = run(*args)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not base.parent.exists() or not list(base.parent.iterdir())


@pytest.mark.parametrize("until", ["class", "0.3"])
def test_a_group_that_is_enough_beside_one_that_is_necessary(run, folder, photo, blank, until):
    code, out, _, base = run("--method", "minimal", "--necessary", "--until", until)
    stop = FLIP if until == "class" else Stop(probability=0.3)
    enough = jm.search.minimal_group(game(folder, photo), 16, stop=stop)
    needed = jm.search.minimal_group(game(folder, photo), 16, stop=stop, insertion=False)
    arrays, record = files(base, "minimal")
    partner = record["necessary"]
    assert code == 0
    assert arrays["necessary"].tolist() == partner["group"] == np.flatnonzero(needed.group).tolist()
    assert f"{int(enough.num_evaluations + needed.num_evaluations)} coalitions in " in out
    assert blank["hidden"] == [False, True]
    np.testing.assert_array_equal(blank["groups"], [enough.group, needed.group])
    assert blank["titles"][1].startswith(f"without {int(needed.size)}: ")
    assert out.splitlines()[1:3] == [record["answer"], partner["answer"]]
    lost = "it is no longer 'tabby' (" if until == "class" else "'tabby' falls to "
    assert f"of 16 regions {lost}" in partner["answer"]
    assert partner["leads"] is False or until == "0.3"
    assert until == "class" or partner["probability"] <= 0.3


def test_where_no_group_is_necessary_the_other_is_shown_alone(run, monkeypatch, blank):
    genuine = jm.search.minimal_group

    def search(*args, insertion=True, **kwargs):
        if not insertion:
            raise NoGroupError("no group along the way reaches the goal")
        return genuine(*args, **kwargs)

    monkeypatch.setattr(jm.search, "minimal_group", search)
    code, out, _, base = run("--method", "minimal", "--necessary", "--quiet")
    arrays, record = files(base, "minimal")
    assert code == 0
    assert out.splitlines()[1].startswith("no group is necessary: the search found none without which 'tabby' is no")
    assert record["necessary"]["group"] is None
    assert "necessary" not in arrays
    assert blank["hidden"] == [False]


def test_a_necessary_group_in_words():
    def words(group, stop=FLIP):
        row = None if group is None else np.arange(9) < group
        found = groups.Without(row, 0.0, 0.2, False, 5)
        return groups.describe_without(found, words_only(target=0, stop=stop))

    assert words(2) == "without these 2 of 9 regions it is no longer 'cat' (20 %), and none of them can be left out"
    assert words(1, Stop(probability=0.5)) == "without this 1 of 9 regions 'cat' falls to 20 %"
    assert words(0) == "nothing has to be hidden: 'cat' is not the top class in the whole photo (20 %)"
    assert words(0, Stop(probability=0.5)) == "nothing has to be hidden: 'cat' is at 20 % in the whole photo"
    assert words(None).startswith(
        "no group is necessary: the search found none without which 'cat' is no longer the top"
    )


def test_the_answer_in_words():
    def words(*sizes, stop=FLIP):
        rows = np.array([[i < size for i in range(9)] for size in sizes])
        count = len(rows)
        found = groups.Groups(rows, np.zeros(count), np.full(count, 0.6), np.full(count, True), None, 5)
        return groups.describe_groups(found, stop, "cat")

    assert words(1) == "this 1 of 9 regions is enough for 'cat', 60 %"
    assert words(3) == "these 3 of 9 regions are enough for 'cat', 60 %, and none of them can be left out"
    assert words(2, 4).endswith("can be left out; so are 4 others")
    assert words(2, 1).endswith("can be left out; so is 1 other")
    assert words(2, 3, 4).endswith("can be left out; so are 3 others, and 4 others")
    assert words(0) == "no region is needed: 'cat' is at 60 % with every region hidden"
    assert words(1, stop=Stop(size=1)).endswith("this 1 of 9 regions does most for 'cat': the top class, 60 %")


@pytest.mark.parametrize("search", [jm.search.minimal_group, jm.search.beam_search])
def test_the_searches_say_how_far_they_are(search):
    seen = []
    weights = jnp.asarray([3.0, 1.0, -2.0, 0.5, 2.0, 0.1])
    found = search(lambda masks: masks @ weights - 4.0, 6, value=0.0, callback=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == int(found.num_evaluations)


def test_the_number_of_evaluations_is_that_of_the_search(run, sketch):
    assert estimate.greedy_evaluations(16, Stop()) == 16 * 17 // 2
    assert estimate.greedy_evaluations(16, Stop(size=3)) == 16 + 15 + 14
    _, _, _, base = run("--until", "3")
    assert read(base)[1]["num_evaluations"] == 16 + 15 + 14
    assert estimate.group_evaluations("minimal", 16, None, width=8, rounds=4) == 136
    assert estimate.group_evaluations("beam", 16, 2, width=8, rounds=0) == 2 * 8 * 16


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        ([0.001], None),  # a forward pass is fast: nothing more is timed
        ([10.0, 1.0], None),  # a chunk of 16 rows in 1 s: 136 evaluations take 8.5 s
        ([10.0, 20.0], "at most 136 evaluations, about 3 min on this machine"),
        ([10.0, 2000.0], "at most 136 evaluations, about 5 hours on this machine"),
    ],
)
def test_a_search_of_over_a_minute_is_told_before(run, sketch, monkeypatch, seconds, line):
    left = list(seconds)
    monkeypatch.setattr(estimate, "_seconds", lambda run: left.pop(0))
    code, out, _, _ = run("--until", "all")
    assert code == 0
    assert left == []
    told = [row for row in out.splitlines() if "on this machine" in row]
    assert told == ([] if line is None else [line])
