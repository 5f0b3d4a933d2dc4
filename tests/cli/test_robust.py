"""`jaxmoxi explain --method robust`: the library's group over removals that are drawn, judged by others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli.robust import Robust, describe_robust
from jaxmoxi.cli.ways import RobustOptions, Ways, share
from jaxmoxi.search.robust import RobustGroup
from jaxmoxi.types import Stop
from support.explain import read, words_only

KINDS = ("tokens", "mean", "blur", "zero", "noise", "inpaint")
SMALL = ("--method", "robust", "--regions", "grid:2x3", "--removals", "2", "--unseen", "3")


@pytest.fixture
def blank(monkeypatch):
    """The keywords of the picture, which is not drawn: it takes a second."""
    seen = {}

    def draw(*args, **kwargs):
        seen.update(kwargs, groups=args[2])
        return Figure()

    monkeypatch.setattr(jm.plot, "groups", draw)
    return seen


def drawn(folder, photo, part, count, seed=0):
    """The games that the command should have drawn."""
    model = jm.models.load(folder)
    image = model.preprocess(Image.open(photo))
    key = jax.random.fold_in(jax.random.key(seed), part)
    regions = jm.grid_regions(32, 32, rows=2, cols=3)
    return jm.games.removals(key, model, image, 0, regions, count=count, kinds=KINDS[:count])


@pytest.mark.filterwarnings("ignore:in the games of the numbers")
def test_a_connected_group_is_the_librarys_and_told_in_pieces(run, folder, photo, blank):
    code, out, _, base = run(*SMALL, "--connected", "--until", "0.3")
    expected = jm.search.robust_group(drawn(folder, photo, 0, 2), 6, probability=0.3, connected=True)
    arrays, record = read(base.with_name("cat-robust"))
    assert code == 0
    assert record["connected"]
    np.testing.assert_array_equal(arrays["mask"], expected.group)
    assert arrays["pieces"] == expected.pieces == 1
    assert " in 1 piece, " in out


@pytest.mark.filterwarnings("ignore:in the games of the numbers")
def test_is_the_librarys_group_and_its_partner(run, folder, photo, blank):
    code, out, _, base = run(*SMALL, "--hold", "0.5", "--necessary", "--seed", "3")
    vs, unseen = drawn(folder, photo, 0, 2, seed=3), drawn(folder, photo, 1, 3, seed=3)
    enough = jm.search.robust_group(vs, 6, hold=0.5, unseen=unseen)
    needed = jm.search.robust_group(vs, 6, hold=0.5, insertion=False, unseen=unseen)
    arrays, record = read(base.with_name("cat-robust"))
    assert code == 0
    for prefix, found in (("", enough), ("necessary_", needed)):
        np.testing.assert_array_equal(arrays[f"{prefix}mask"], found.group)
        for name in ("holds", "held", "searched", "unseen", "interval", "num_evaluations", "size"):
            np.testing.assert_allclose(arrays[f"{prefix}{name}"], getattr(found, name), err_msg=name)
        np.testing.assert_allclose(arrays[f"{prefix}unseen_values"], found.stability.values, rtol=1e-3, atol=1e-3)
        of_json = record["necessary"] if prefix else record
        assert of_json["group"] == arrays[f"{prefix}group"].tolist() == np.flatnonzero(found.group).tolist()
        assert sum(of_json["unseen_held"]) == round(3 * float(found.unseen))
        assert of_json["held"] == np.asarray(found.held).tolist()
    assert record["removals"]["kinds"] == arrays["kinds"].tolist() == ["tokens", "mean"]
    assert record["unseen_removals"]["kinds"] == ["tokens", "mean", "blur"]
    assert (record["masking"], record["fill"], record["hold"], record["seed"]) == (None, None, 0.5, 3)
    printed = out.splitlines()
    assert record["answer"] in printed
    assert record["necessary"]["answer"] in printed
    assert f"{int(enough.num_evaluations + needed.num_evaluations)} coalitions in " in out
    assert blank["hidden"] == [False, True]
    np.testing.assert_array_equal(blank["groups"], [enough.group, needed.group])
    assert "2 ways (tokens, mean)" in blank["caption"]


def test_one_removal_and_no_judge(run, folder, photo, blank):
    code, out, _, base = run(
        "--method", "robust", "--regions", "grid:2x3", "--removals", "1", "--unseen", "0", "--quiet"
    )
    arrays, record = read(base.with_name("cat-robust"))
    expected = jm.search.minimal_group(drawn(folder, photo, 0, 1)[0], 6)
    assert code == 0
    np.testing.assert_array_equal(arrays["mask"], expected.group)
    assert "unseen" not in arrays
    assert out.strip() == record["answer"]
    assert "in the one removal searched" in out
    assert out.strip().endswith("; no other removal judged it")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--method", "robust", "--masking", "pixels"],
            "--masking names one way of hiding regions, and --method robust",
        ),
        (["--method", "robust", "--fill", "mean"], "--fill names one way of hiding regions"),
        (["--method", "robust", "--warm"], "--warm compiles ahead for --method insertion and deletion"),
        (["--method", "robust", "--until", "3"], "--until: --method robust looks for the smallest group itself"),
        (["--method", "robust", "--until", "all"], "give class, or a probability such as 0.9"),
        (["--method", "robust", "--removals", "0"], "--removals: expected a whole number of at least 1; got 0"),
        (["--method", "robust", "--unseen", "-1"], "--unseen: expected a whole number of at least 0; got -1"),
        (["--method", "robust", "--seed", str(2**40)], "--seed: expected a number below 2**32"),
        (
            ["--method", "robust", "--hold", "0"],
            "--hold: expected a share of the removals, above 0 and at most 1; got 0",
        ),
        (["--method", "robust", "--hold", "nan"], "--hold: expected a share of the removals"),
        (["--method", "minimal", "--hold", "0.5"], "--hold is an option of --method robust; --method minimal has one"),
        (["--removals", "3"], "--removals is an option of --method robust; --method insertion has one removal"),
        (["--method", "beam", "--necessary"], "--necessary asks for the partner of a group that is enough"),
    ],
)
def test_what_cannot_be_combined_is_one_line(run, args, message):
    code, out, err, base = run(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not base.parent.exists() or not list(base.parent.iterdir())


def test_removals_in_which_the_whole_photo_is_not_enough_are_told(run, blank):
    """A class that is not seen: no removal of the whole photo shows it, and each is named."""
    code, out, err, base = run(*SMALL, "--target", "lynx", "--unseen", "1")
    assert "in 2 of the 2 removals searched (1: tokens, 2: mean) 'lynx' is not the top class even in the whole" in err
    assert "in 1 of the 1 removals not seen by the search (1: tokens) 'lynx' is not the top class" in err
    if code:
        assert "not in those of the numbers [1, 2]. Give another goal, or another --target: the model does not" in err
        return
    record = read(base.with_name("cat-robust"))[1]
    assert record["removals"]["whole_photo_enough"] == [False, False]
    assert record["unseen_held"] == [True] or "in 1 of the others the goal is missed with the whole photo too" in out


def found_with(size, held, unseen, interval=(0.4, 0.9), total=6):
    return RobustGroup(
        group=jnp.arange(total) < size, size=jnp.int32(size), holds=jnp.float32(np.mean(held)), held=jnp.asarray(held),
        searched=jnp.asarray(held), num_evaluations=jnp.int32(9),
        unseen=None if unseen is None else jnp.float32(np.mean(unseen)),
        interval=None if unseen is None else jnp.asarray(interval, jnp.float32),
    )  # fmt: skip


def test_the_answer_in_words():
    def words(size, *, held=(True, True), unseen=(True, False), insertion=True, stop=None, whole=(True, True)):
        task = words_only(num_players=6, target=0, top=0, stop=stop or Stop(flip=True))
        seen = Ways([None] * len(held), ["mean"] * len(held), np.array(held), np.array(held))
        judges = Ways([None] * len(whole), ["zero"] * len(whole), np.array(whole), np.array(whole))
        found = None if size is None else found_with(size, held, unseen)
        met = np.array([] if unseen is None else unseen, bool)
        return " ".join(describe_robust(task, seen, judges, Robust(found, met, insertion)))

    assert words(3) == (
        "these 3 of 6 regions are enough for 'cat' in 2 of the 2 removals searched, and none of them can be left out; "
        "of 2 removals that the search did not see, in 1 (50 %, 95 % interval 40 to 90 %; not in 1 of 2 zero)"
    )
    assert words(1, held=(True, False)).startswith(
        "this 1 of 6 regions is enough for 'cat' in 1 of the 2 removals searched (in 1 of the others the goal is "
        "missed with the whole photo too); of 2 removals"
    )
    assert words(0).startswith("no region is needed: 'cat' is the top class with every region hidden in 2 of the 2")
    assert words(2, stop=Stop(probability=0.9)).startswith("these 2 of 6 regions are enough for 'cat' at 90 % in 2")
    assert words(2, insertion=False).startswith("without these 2 of 6 regions 'cat' is no longer the top class in 2")
    assert words(2, insertion=False, stop=Stop(probability=0.9)).startswith(
        "without these 2 of 6 regions 'cat' is at 90 % or less in 2 of the 2"
    )
    assert words(0, insertion=False).startswith("nothing has to be hidden: 'cat' is not the top class in the whole")
    assert words(None, insertion=False).startswith("no group is necessary: the search found none without which 'cat'")
    assert words(2, whole=(True, False)).endswith("; in 1 of the others the goal is missed with the whole photo too")
    assert words(2, unseen=None).endswith("; no other removal judged it")


def test_the_kinds_that_a_group_fails_in_are_told():
    """Those first where it fails most, not most often."""
    task = words_only(num_players=6, target=0, top=0, stop=Stop(flip=True))
    seen = Ways([None] * 6, ["mean", "blur", "zero"] * 2, np.ones(6, bool), np.ones(6, bool))
    judges = Ways([None] * 5, ["mean", "noise", "mean", "blur", "mean"], np.ones(5, bool), np.ones(5, bool))
    held = np.array([True, True, False, True, False, False])
    met = np.array([False, True, False, False, True])
    found = found_with(2, held, met)
    _, where = describe_robust(task, seen, judges, Robust(found, met, True))
    assert where.startswith("in 3 of the 6 removals searched (not in 2 of 2 zero, 1 of 2 blur), and none of them")
    assert where.endswith("in 2 (40 %, 95 % interval 40 to 90 %; not in 1 of 1 blur, 2 of 3 mean)")
    # Of removals in which nobody can hold, none of that is said of the group: the whole photo fails there too.
    for insertion, ends in ((True, "with the whole photo"), (False, "with every region hidden")):
        able = np.array([True, True, False, True, False, False])
        some = seen._replace(whole=able if insertion else ~able, bare=~able if insertion else able)
        none = judges._replace(whole=met if insertion else ~met, bare=~met if insertion else met)
        _, where = describe_robust(task, some, none, Robust(found, met, insertion))
        assert where.startswith(f"in 3 of the 6 removals searched (in 3 of the others the goal is missed {ends} too), ")
        assert where.endswith(f"(40 %, 95 % interval 40 to 90 %); in 3 of the others the goal is missed {ends} too")


def test_left_out_hold_asks_for_what_the_whole_photo_reaches():
    assert share(None, np.array([True, False, True, True])) == 0.75
    assert share(None, np.array([False, False])) == 1.0
    assert share(0.5, np.array([True, True])) == 0.5
    assert all(value is None for value in dataclasses.astuple(RobustOptions()))
