"""Photos, models and classes whose names a renderer would take for something else: measured, written, drawn."""

import dataclasses
import os

import matplotlib.image
import pyarrow.parquet as pq
import pytest

from jaxmoxi.study import run_study
from jaxmoxi.study.report import _stems
from support.study import save, tiny_classifier, tiny_config

CONFIG = tiny_config(methods=("random",), metrics=("curves",), sizes=3)
NAMES = (
    "$x^{$.png",
    r"a\frac{1}{.png",
    "<script>alert(1)<|script>.png",
    "a|b`c`*d*_e_.png",
    "two\nlines\r\tand a bell \x07.png",
    "[link](http:|x).png",
    "y" * 240 + ".png",
    "\u202eright to left.png",
)
CLASSES = ("$x^{$", r"\frac{<b>&amp;", "a\nb" + "z" * 300, "\udce9\x1b|`")


def test_names_of_every_kind(tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    for i, name in enumerate(NAMES):
        save(folder / str(i % 4) / name, size=(24, 20))
        (folder / "0" / f"broken {name}"[:250].removesuffix(".png")).with_suffix(".png").write_bytes(b"no photo")
    os.rename(save(folder / "0" / "latin.png"), os.fsencode(folder) + b"/0/caf\xe9.png")
    model = dataclasses.replace(tiny_classifier(), class_names=CLASSES)
    report = run_study(folder, {"<b>$m|\n\udce9`": model}, out, CONFIG, progress=False).read_text()
    assert f"Photos: {len(NAMES) + 1} ok, {len(NAMES)} unreadable." in report
    (title,) = [line for line in report.splitlines() if line.startswith("## ")]
    listed = report.split("Photos without a result (8):\n\n")[1].split("\n\n")[0].split("\n")
    assert len(listed) == len(NAMES)  # a line each
    assert all(line.startswith("- 0/broken ") and len(line) < 900 for line in listed)
    assert not any(bad in "".join([title, *listed]) for bad in ("<", "|", "`", "](", "$", "\x07", "\r"))
    rows = pq.read_table(out / "table.parquet").to_pylist()
    assert {row["photo"].partition("/")[2] for row in rows} == {*NAMES, "caf\\xe9.png"}
    figures = [path.name for path in (out / "figures").iterdir()]
    assert len(figures) == 2
    for figure in figures:
        assert f"](figures/{figure})" in report
        assert matplotlib.image.imread(out / "figures" / figure).std() > 0


def test_files_of_models_of_any_name():
    names = ("a/b", "a:b", "A-B", "x" * 300, "x" * 301, "", "..", "\udce9", "\U0001f408", "$x$ y")
    stems = _stems(names)
    assert len({stem.lower() for stem in stems}) == len(names)
    assert all(0 < len(stem) < 70 and stem.isascii() and not set("/:$ ") & set(stem) for stem in stems)
    assert stems[0] == "a-b"


def test_models_of_one_name(tmp_path):
    save(tmp_path / "a.png", size=(24, 20))
    model = tiny_classifier()
    config = dataclasses.replace(CONFIG, target="prediction")
    with pytest.raises(ValueError, match="expected models of different names; got a b, a b"):
        run_study(tmp_path, {"a\nb": model, "a b": model}, tmp_path / "other", config, progress=False)
