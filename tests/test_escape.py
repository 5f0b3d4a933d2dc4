"""Names of every kind are drawn, rendered and written letter by letter."""

import html
import io
import os
import random
import sys

import pytest
from matplotlib.figure import Figure

from jaxmoxi.escape import file_name, markdown, plain, printable

HOSTILE = [
    "cost $5 and $6", r"\frac{", "$\\frac{1}$", "a_b^c", "_hidden", "<b>bold</b>", "a | b", "# heading", "line\nbreak",
    "bell\x07", os.fsdecode(b"caf\xe9.png"), "\ud800", "x" * 240, "שלום עולם", "\u202egnp.exe", "", " ", "\0", "a\\$b",
    "$", "$$", "```", "1. item", "- item", "[a](http://b)", "![x](y)", "&amp;", "a*b*c", "~~x~~", "\u2028", "{x}", "%s",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_matplotlib_draws_every_name_and_reads_no_mathematics(name):
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.plot([0, 1], label=plain(name))
    axes.set_title(plain(name) + " and " + plain(name))
    legend = axes.legend()
    figure.savefig(io.BytesIO(), format="png")
    text = axes.title
    assert text._preprocess_math(text.get_text())[1] is False
    shown = text._preprocess_math(plain(name, limit=1000))[0]
    assert shown.strip() == printable(name)
    assert len(legend.get_texts()) == 1 or not printable(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_is_one_cell_whose_text_is_the_name(name):
    shown = markdown(name)
    assert not set(shown) & set("<>|`*[]\\~$\"'\n")
    assert html.unescape(shown) == printable(name)
    assert not shown.startswith(("#", "-", "+ ", "1. "))
    shown.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_the_name_can_be_made(name, tmp_path):
    path = tmp_path / f"{file_name(name)}.png"
    path.touch()
    assert path.parent == tmp_path
    assert list(tmp_path.iterdir()) == [path]


def test_long_names_stay_apart_and_usual_names_stay_as_they_are():
    assert file_name("cat.v2 (1)") == "cat.v2 (1)"
    assert plain("Egyptian cat") == markdown("Egyptian cat") == "Egyptian cat"
    assert markdown("snake_case-name 2.0, CC BY-SA") == "snake_case-name 2.0, CC BY-SA"
    assert file_name("é" * 200 + "a") != file_name("é" * 200 + "b")
    assert len(file_name("é" * 200).encode()) <= 200
    assert plain("a" * 100 + "z", limit=10) == "aaaaaa…aaz"


def test_no_text_raises():
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(chr(draw.randrange(sys.maxunicode + 1)) for _ in range(draw.randrange(40)))
        for escaped in (plain(text), markdown(text), file_name(text), printable(text)):
            escaped.encode()
            assert not any(c in escaped for c in "\n\r\0\x1b")
