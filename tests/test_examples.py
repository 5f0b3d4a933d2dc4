"""The examples run, and write the pictures they say they write."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, tmp_path, *arguments):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested():
    names = {"explain_photo.py", "own_flax_model.py", "draw_interactions.py", "scenes_report.py"}
    assert {p.name for p in EXAMPLES.glob("*.py")} == names


def test_explain_photo(tmp_path):
    printed = run("explain_photo.py", tmp_path)
    assert "enough: regions" in printed
    assert "espresso" in printed
    assert Image.open(tmp_path / "explained.png").size > (300, 300)


def test_own_flax_model(tmp_path):
    lines = run("own_flax_model.py", tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["nnx", "vmapped", "equinox"]
    assert sorted(map(int, lines[0].split("[")[1].strip("]").split(","))) == list(range(16))


@pytest.mark.parametrize("name", ["drawn.png"])
def test_draw_interactions(tmp_path, name):
    assert "full context: strongest between regions" in run("draw_interactions.py", tmp_path, name)
    assert Image.open(tmp_path / name).size > (300, 300)


@pytest.mark.slow
def test_scenes_report(tmp_path):
    sizes = ["--num-scenes", "160", "--epochs", "1", "--image-size", "32", "--num-groups", "16", "--quiet"]
    for name, options in (("run", []), ("twin", ["--black-box"])):
        command = [sys.executable, "-m", "jaxmoxi", "train", "--out", name, *sizes, *options]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    printed = run("scenes_report.py", tmp_path, "run", "--twin", "twin", "--out", "report")
    assert "| the objects' own |" in printed
    assert printed.count("| run |") == 5  # four certainties, and its masks
    for name in ("history", "selected", "prediction"):
        assert Image.open(tmp_path / "report" / f"{name}.png").size > (300, 300)
