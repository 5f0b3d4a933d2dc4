"""The examples run, and write the pictures they say they write."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = ("numpy_or_torch_model.py", "eleven_channels.py")  # one of each kind; the rest are slow
MODELS = {  # and what their lines of output begin with
    "linen_model.py": ["weights 0", "weights 1"],
    "nnx_model.py": ["one image", "a batch"],
    "equinox_model.py": ["needed most"],
    "numpy_or_torch_model.py": [""],
}

MADE = {  # of made-up data, and what their output says of the truth that is known
    "binary_head.py": r"on the spot: (0\.9\d|1\.00)",
    "multi_label.py": r"red square: enough \[(\d+)\], true place \1\n.*\n.*blue square: enough \[(\d+)\], .*place \2",
    "one_channel.py": r"in the object: (0\.[89]\d|1\.00) of the group, 0\.[12]\d of the image",
    "eleven_channels.py": r"burnt: (0\.[89]\d|1\.00) of the group, 0\.[1-4]\d of the image",
}


def each(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def run(name, tmp_path, *arguments):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested():
    named = {"explain_photo.py", "draw_interactions.py", "scenes_report.py", "shapiq_indices.py", "torch_module.py"}
    named |= {"methods_report.py", "set_sum.py"}  # the last in test_example_set_sum.py
    names = {*named, *MODELS, *MADE, "training.py"}  # the last is what those of made-up data share
    assert {p.name for p in EXAMPLES.glob("*.py")} == names


@pytest.mark.slow
def test_explain_photo(tmp_path):
    printed = run("explain_photo.py", tmp_path)
    assert "enough: regions" in printed
    assert "espresso" in printed
    assert Image.open(tmp_path / "explained.png").size > (300, 300)


@pytest.mark.parametrize("name", each(MODELS))
def test_models_of_other_libraries(tmp_path, name):
    lines = run(name, tmp_path).splitlines()
    labels = [line.split(":")[0] for line in lines]
    if name == "numpy_or_torch_model.py":
        labels = ["" if label in ("numpy", "torch") else label for label in labels]
    assert labels == MODELS[name]
    orders = [json.loads(line.split(":")[1]) for line in lines]
    assert sorted(orders[0]) == list(range(16))
    if name == "linen_model.py":
        assert sorted(orders[1]) == list(range(16))
        assert orders[0] != orders[1]
    if name == "nnx_model.py":
        assert [len(set(order)) for order in orders[1]] == [4] * 5


@pytest.mark.parametrize("name", each(MADE))
def test_heads_and_channels_of_other_kinds(tmp_path, name):
    printed = run(name, tmp_path, "out.png")
    assert re.search(r"right answers: (0\.9\d|1\.0)", printed)
    assert re.search(MADE[name], printed), printed
    assert min(Image.open(tmp_path / "out.png").size) > 300


def test_torch_module(tmp_path):
    if find_spec("torch") is None or find_spec("torchax") is None:
        pytest.skip("needs the extra torch")
    traced, called, slope = run("torch_module.py", tmp_path).splitlines()
    assert traced.removeprefix("traced:") == called.removeprefix("called back:")
    assert sorted(json.loads(traced.split(":")[1])) == list(range(16))
    assert float(slope.split(":")[1]) > 0


def test_shapiq_indices(tmp_path):
    pytest.importorskip("shapiq")
    lines = run("shapiq_indices.py", tmp_path, "graph.png").splitlines()
    exact, sampled, kernel = (np.array(json.loads(line.split(":")[1])) for line in lines[:3])
    np.testing.assert_allclose(sampled.sum(), exact.sum(), atol=0.1)  # both share out the same, rounded to 0.01
    np.testing.assert_allclose(kernel.sum(), exact.sum(), atol=0.1)
    assert np.corrcoef(exact, sampled)[0, 1] > 0.9
    assert np.corrcoef(exact, kernel)[0, 1] > 0.9
    assert lines[3].startswith("strongest interaction:   regions (")
    assert Image.open(tmp_path / "graph.png").size > (300, 300)


@pytest.mark.parametrize("name", ["drawn.png"])
@pytest.mark.slow
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


def test_the_methods_are_one_table(tmp_path):
    fidelity = {"shares": [0.1, 0.2], "deletion": [[1, 1], [1, 1]], "insertion": [[0.25, 0.5], [0.375, 0.625]]}
    found = {
        "p2p": dict(method="p2p", certainty=[0.8, 0.99], accuracy=[0.9, 0.95], hard_share=[0.1, 0.2], fidelity=fidelity,
                    precision=[0.8, 0.7], pixel_ap=[0.6, 0.5]),
        "twin": dict(method="blackbox", certainty=None, accuracy=0.97, hard_share=[1.0], fidelity=None,
                     precision=None, pixel_ap=None),
    }  # fmt: skip
    for name, record in found.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps(record | {"seconds": 90.0}))
    epoch = dict(epoch=1, step=9, loss=1.0, accuracy=0.5, soft_share=0.3, hard_share=0.2)
    (tmp_path / "p2p" / "history.jsonl").write_text(json.dumps(epoch) + "\n")
    printed = run("methods_report.py", tmp_path, *found, "--out", "report")
    assert (tmp_path / "report" / "report.md").read_text() == printed
    assert Image.open(tmp_path / "report" / "history.png").size > (300, 300)
    assert printed.splitlines()[2:] == [
        "| p2p | p2p | 0.8 | 90.0 | 10.0 | 25.0 | 50.0 | 80.0 | 0.600 | 1.5 |",
        "| p2p | p2p | 0.99 | 95.0 | 20.0 | 37.5 | 62.5 | 70.0 | 0.500 | 1.5 |",
        "| twin | blackbox |  | 97.0 | 100.0 |  |  |  |  | 1.5 |",
    ]
