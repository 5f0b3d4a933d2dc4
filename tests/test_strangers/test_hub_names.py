"""Names, addresses and caches of the Hugging Face hub as strangers give them, where nothing can be downloaded."""

import sys
from pathlib import Path

import pytest

import jaxmoxi as jm
from support.checkpoints import vit_tensors, write_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be filled."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(root, *revisions, main=None):
    """A model's folder in the hub's cache, as its tools lay it out: links to blobs."""
    for revision in revisions:
        write_folder(root / "blobs" / revision, tensors=vit_tensors())
        snapshot = root / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for file in (root / "blobs" / revision).iterdir():
            (snapshot / file.name).symlink_to(file)
    if main is not None:
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(main)
    return root


def test_a_name_of_the_hub_says_how_to_get_it():
    for name in ("google/vit-base-patch16-224", "timm/vit_tiny_patch16_224.augreg_in21k", "me/my.model/"):
        with pytest.raises(FileNotFoundError) as caught:
            jm.models.load(name)
        name = name.removesuffix("/")
        assert isinstance(caught.value, jm.InputError)
        assert f"no folder {name}, and no whole copy of {name} in the cache" in str(caught.value)
        assert "pip install 'jaxmoxi[hub]'" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_name_of_the_hub_that_is_in_its_cache(cache):
    cached(cache / "models--google--vit-tiny", "abc123", main="abc123")
    model = jm.models.load("google/vit-tiny")
    assert (model.name, model.class_names) == ("vit-tiny", ("ant", "bee", "cow"))


def test_folders_of_the_hubs_cache(tmp_path):
    assert jm.models.load(cached(tmp_path / "models--a--one", "abc")).name == "one"
    assert jm.models.load(cached(tmp_path / "models--a--two", "abc", "def", main="def\n")).name == "two"
    assert jm.models.load(cached(tmp_path / "models--gone", "abc", main="deleted")).name == "gone"
    for root in (
        cached(tmp_path / "models--a--b", "abc", "def"),
        cached(tmp_path / "models--c--d", "x", "y", main="z"),
    ):
        with pytest.raises(jm.InputError, match=r"with 2 snapshots .*expected refs/main to name one of them"):
            jm.models.load(root)
    outside = cached(tmp_path / "models--e--f", "abc", "def", main="../../models--a--one/snapshots/abc")
    with pytest.raises(jm.InputError, match="2 snapshots"):
        jm.models.load(outside)


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/google/vit-base-patch16-224",
        "http://hf.co/google/vit-base-patch16-224/tree/main",
        "https://huggingface.co/google/vit-base-patch16-224?library=transformers#usage",
        "hf://google/vit-base-patch16-224",
        "hf://models/google/vit-base-patch16-224",
        "hf-hub:google/vit-base-patch16-224",  # as timm has it
        Path("https://huggingface.co/google/vit-base-patch16-224"),  # as the command makes it
    ],
)
def test_addresses_of_the_hub(address, cache):
    with pytest.raises(FileNotFoundError, match=r"^no whole copy of google/vit-base-patch16-224 .*pip install"):
        jm.models.load(address)
    cached(cache / "models--google--vit-base-patch16-224", "abc", main="abc")
    assert jm.models.load(address).name == "vit-base-patch16-224"


def test_other_addresses():
    for address in (
        "https://example.com/model.safetensors", "https://example.com/google/vit", "gs://bucket/model",
        "file:///models/vit", "https://huggingface.co/datasets/cifar10/x", "https://huggingface.co/google", "hf://google",
        "hf://datasets/google/x", "https://huggingface.co.example.com/google/vit", "hf-hub:../x",
    ):  # fmt: skip
        with pytest.raises(jm.InputError, match=r"is an address, and not that of a model of the Hugging Face hub"):
            jm.models.load(address)
    for address in ("blob/main/model.safetensors", "resolve/main/model.safetensors?download=true"):
        with pytest.raises(jm.InputError, match=r"is the address of a single file; give google/vit, its model"):
            jm.models.load(f"https://huggingface.co/google/vit/{address}")


def test_paths_that_are_mistyped_are_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("./runs/vit", "/runs/vit", "runs/vit.safetensors", "runs/vit.pt", "runs/config.json", "a/b/c", "vit"):
        with pytest.raises(FileNotFoundError, match=r"no model folder .*, or a name of the Hugging Face hub such as"):
            jm.models.load(path)


def test_a_cache_that_is_incomplete(cache):
    """A download that was cut off, and a link whose blob is gone."""
    root = cached(cache / "models--me--vit", "abc", main="abc")
    (root / "blobs" / "abc" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no whole copy of me/vit in the cache"):
        jm.models.load("me/vit")


def test_a_cache_that_does_not_say_which_commit_is_main(cache):
    cached(cache / "models--me--vit", "abc")
    with pytest.warns(UserWarning, match="does not say what the branch main of me/vit is; taking its only commit, abc"):
        assert jm.models.load("me/vit").name == "vit"
    assert jm.models.load("me/vit", revision="abc").name == "vit"
    cached(cache / "models--me--two", "abc", "def")
    with pytest.raises(jm.InputError, match="2 snapshots .*expected refs/main"):
        jm.models.load("me/two")
