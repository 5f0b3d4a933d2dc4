"""`jaxmoxi explain` on inputs that are wrong, and a search that ends early."""

import numpy as np
import pytest
from PIL import Image

import jaxmoxi as jm
from support.explain import read, search, write_model


def wrong(tmp_path, photo):
    """Files that are not what they should be."""
    Image.open(photo).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "misshapen").mkdir()
    write_model(tmp_path / "misshapen", **{"classifier.weight": np.zeros((5, 31), np.float32)})
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize(
    ("args", "files", "message"),
    [
        ([], {"photo": "missing.jpg"}, "missing.jpg does not exist; expected an image file"),
        ([], {"photo": "empty"}, "empty is a folder, not a photo"),
        ([], {"photo": "cut.jpg"}, "cut.jpg cannot be read as an image (image file is truncated"),
        ([], {"photo": "text.jpg"}, "text.jpg cannot be read as an image (not an image of a known format"),
        ([], {"model": "misshapen"}, "classifier.weight"),
        ([], {"model": "missing"}, "missing"),
        ([], {"model": "empty"}, "config.json"),
        (["--target", "nonsense"], {}, "--target: tiny-vit has no class 'nonsense'"),
        (["--target", "lynxx"], {}, "did you mean 'lynx'?"),
        (["--target", "5"], {}, "--target: expected a class index from 0 to 4; got 5"),
        (["--regions", "slic:0"], {}, "--regions: expected regions of grid:ROWSxCOLUMNS or slic:COUNT; got 'slic:0'"),
        (["--regions", "grid:33x3"], {}, "--regions: a grid needs 1 <= rows"),
        (["--regions", "grid:3"], {}, "got 'grid:3': write for example grid:14x14"),
        (["--until", "0"], {}, "--until: expected class, all, a number of regions from 1 to 16"),
        (["--until", "17"], {}, "from 1 to 16, or a probability between 0 and 1 such as 0.9; got '17'"),
        (["--until", "1.5"], {}, "got '1.5'"),
        (["--until", "0.0"], {}, "got '0.0'"),
        (["--fill", "mean"], {}, "--fill is what hidden pixels become; tokens are removed"),
        (["--masking", "pixels", "--fill", "red"], {}, "--fill: expected a number, mean or blur; got 'red'"),
        (["--masking", "pixels", "--fill", "nan"], {}, "got 'nan'"),
        (["--batch-size", "0"], {}, "--batch-size: expected a number of at least 1; got 0"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2(run, tmp_path, photo, args, files, message):
    wrong(tmp_path, photo)
    code, out, err, base = run(*args, **{kind: tmp_path / name for kind, name in files.items()})
    assert code == 2
    assert err.startswith("jaxmoxi: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not base.parent.exists()  # nothing was written, not even the folder


def test_tokens_need_a_vision_transformer(run, monkeypatch):
    monkeypatch.setattr(jm.models.Classifier, "token_grid", None)
    code, _, err, _ = run("--masking", "tokens")
    assert code == 2
    assert "--masking tokens needs a vision transformer; tiny-vit has no tokens: use --masking pixels" in err


def test_pixels_are_hidden_where_there_are_no_tokens(run, monkeypatch, sketch):
    monkeypatch.setattr(jm.models.Classifier, "token_grid", None)
    _, _, _, base = run("--until", "1")  # 7 x 7 players
    assert (read(base)[1]["masking"], read(base)[1]["regions"]) == ("pixels", "grid:7x7")


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_place_that_cannot_be_written_is_found_before_the_search(run, tmp_path, monkeypatch, inside):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(jm, "greedy_insertion", lambda *a, **k: pytest.fail("searched first"))
    code, _, err, _ = run("--out", tmp_path / "file" / inside)
    assert code == 2
    assert "cannot write there (" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (jm.OutOfMemoryError("out of memory with batch_size=32: try batch_size=16"), 2, "try --batch-size 16"),
        (KeyboardInterrupt(), 130, "jaxmoxi: interrupted"),
    ],
)
def test_what_was_found_before_an_interruption_is_written(run, monkeypatch, folder, photo, error, code, line):
    genuine = jm.greedy_insertion

    def interrupted(v, num_players, *, callback=None, **kwargs):
        def follow(info):
            if callback is not None:
                callback(info)
                if int(info.step) == 2:
                    raise error

        return genuine(v, num_players, callback=follow, **kwargs)

    monkeypatch.setattr(jm, "greedy_insertion", interrupted)
    ended, out, err, base = run("--until", "all")
    expected = search(folder, photo, "insertion", stop=jm.Stop(size=2))
    arrays, record = read(base)
    assert ended == code
    assert line in err
    assert err.count("\n") == 1
    np.testing.assert_array_equal(arrays["order"], expected.order)
    np.testing.assert_allclose(arrays["values"], expected.values, rtol=1e-5)
    assert int(arrays["num_evaluations"]) == int(expected.num_evaluations)
    assert record["finished"] is False
    assert record["start"] == {"value": None, "probability": None, "leads": None}
    assert out.splitlines()[1] == record["answer"] == "unfinished: 2 of 16 regions in order"


def test_what_was_found_before_a_nan_is_written(run, monkeypatch, folder, photo):
    found = search(folder, photo, "insertion", stop=jm.Stop(size=2))

    def broken(*args, **kwargs):
        raise jm.NaNValueError("the value function returned NaN at step 3, for player 1", found)

    monkeypatch.setattr(jm, "greedy_insertion", broken)
    code, _, err, base = run()
    assert code == 2
    assert "jaxmoxi: error: the value function returned NaN at step 3" in err
    np.testing.assert_array_equal(read(base)[0]["order"], found.order)
