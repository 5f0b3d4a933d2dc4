"""A tiny model, a photo, and `jaxmoxi explain` run on them."""

import pytest
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

import jaxmoxi as jm
from jaxmoxi.cli import main as cli
from jaxmoxi.cli import shared as _command
from support.explain import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vision transformer of 4 x 4 patches as a Hugging Face folder; its weights follow from their names."""
    path = tmp_path_factory.mktemp("models") / "tiny-vit"
    path.mkdir()
    write_model(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "cat.png"
    Image.fromarray(data.chelsea()[::4, ::4]).save(path)
    return path


@pytest.fixture
def no_cache(monkeypatch):
    """The cache on disk and the simulated devices are the process's, not this test's."""
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)
    monkeypatch.setattr(_command, "start_devices", lambda: None)


@pytest.fixture
def sketch(monkeypatch):
    """An empty picture, where drawing it is not what a test is about: it takes a second."""
    monkeypatch.setattr(jm.plot, "explanation", lambda *args, **kwargs: Figure())


@pytest.fixture
def run(folder, photo, tmp_path, capsys, no_cache):
    """Runs `jaxmoxi explain` on the photo and returns (exit code, printed, errors, files' base path)."""

    def run(*args, photo=photo, model=folder):
        argv = ["explain", *([] if photo is None else [str(photo)]), "--model", str(model)]
        code = cli.main([*argv, "--out", str(tmp_path / "out"), *map(str, args)])
        captured = capsys.readouterr()
        method = "deletion" if "deletion" in args else "insertion"
        return code, captured.out, captured.err, tmp_path / "out" / f"{'chelsea' if photo is None else 'cat'}-{method}"

    return run
