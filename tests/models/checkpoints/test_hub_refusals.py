"""What the hub, the network or the disk refuse: one line each, and the cache instead where it has the model."""

import errno
import os
import re
import sys

import pytest

import jaxmoxi as jm
from jaxmoxi.cli.main import main
from support.checkpoints import vit_tensors, write_folder
from support.hub import Hub, serving

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(hub_environment, monkeypatch):
    """A hub with me/vit, me/gated, me/private, me/empty, me/readme and me/onnx."""
    hub = Hub()
    folder = write_folder(hub_environment / "source", tensors=vit_tensors())
    for name in ("me/vit", "me/gated", "me/private"):
        hub.add(name, folder)
    hub.gated.add("me/gated")
    hub.private.add("me/private")
    for name, files in (
        ("empty", [".gitattributes"]),
        ("readme", ["README.md", "model.safetensors"]),
        ("onnx", ["config.json", "onnx/model.onnx", "tf_model.h5"]),
        ("several", ["config.json", "a.safetensors", "b.safetensors"]),
        ("adapter", ["config.json", "adapter_model.safetensors"]),
    ):
        for file in files:
            (hub_environment / name / file).parent.mkdir(parents=True, exist_ok=True)
            (hub_environment / name / file).write_text("{}")
        hub.add(f"me/{name}", hub_environment / name)
    with serving(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def refusal(name, **options):
    """The message of the one error, which no other explains."""
    with pytest.raises(jm.InputError) as caught:
        jm.models.load(name, **options)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert "\n" not in str(error)
    return str(error)


def test_what_the_hub_does_not_have(hub):
    message = refusal("me/nothing")
    assert message.startswith(f"no folder me/nothing, and {hub.url} has no model me/nothing, or keeps it private; ")
    assert f"check the name at {hub.url}/me/nothing" in message
    assert refusal("hf-hub:me/nothing").startswith(f"{hub.url} has no model")
    assert f"me/vit on {hub.url} has no revision 'v9'; give a branch" in refusal("me/vit", revision="v9")
    assert f"me/vit on {hub.url} has no revision 'v9'" in refusal("hf://me/vit@v9")


def test_what_the_hub_keeps_to_some(hub, monkeypatch):
    message = refusal("me/gated")
    assert f"me/gated is gated on {hub.url}; accept its conditions at {hub.url}/me/gated, then set HF_TOKEN" in message
    assert "or keeps it private; check the name" in refusal("me/private")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept the token; set HF_TOKEN to a valid one" in refusal("me/vit")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    for name in ("me/gated", "me/private"):
        assert jm.models.load(name).name == name[3:]


def test_repositories_of_no_classifier(hub):
    assert f"{hub.url}/me/empty has no config.json; expected the repository of a classifier. It is empty" in refusal(
        "me/empty"
    )
    assert "has no config.json" in refusal("me/readme")
    assert "It has README.md, model.safetensors" in refusal("me/readme")
    message = refusal("me/onnx")
    assert "has no weights that are read; expected model.safetensors, pytorch_model.bin or one other file" in message
    assert message.endswith("It has config.json, tf_model.h5, onnx/model.onnx")
    assert "It has a.safetensors, b.safetensors, config.json" in refusal("me/several")
    assert "It has adapter_model.safetensors, config.json" in refusal("me/adapter")
    assert hub.fetched() == ([], [])


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"has no model me/vit, or keeps it private"),  # the real hub answers so without a token
        (403, r"forbids access to me/vit; ask for it at http.*/me/vit, then set HF_TOKEN"),
        (429, r"has had too many requests; wait some minutes"),
        (500, r"answers 500 for me/vit; try again later"),
        (503, r"answers 503 for me/vit; try again later"),
    ],
)
def test_answers_that_are_a_number_alone(hub, status, message):
    hub.status = status
    assert re.search(message, refusal("me/vit"))
    hub.status = None
    jm.models.load("me/vit")
    hub.status = status
    with pytest.warns(UserWarning, match=r"Taking me/vit from the cache, commit .*, which may be older"):
        jm.models.load("me/vit")


def test_an_address_that_is_no_hub(hub, monkeypatch):
    hub.page = True
    assert f"{hub.url} does not answer as the hub does; check HF_ENDPOINT" in refusal("me/vit")
    for address in ("huggingface.co", "ftp://hub", "https://"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert (
            f"expected HF_ENDPOINT as an address such as https://huggingface.co; got {address.rstrip('/')}"
            in refusal("me/vit")
        )


def test_a_hub_that_cannot_be_reached(hub, hub_environment, monkeypatch):
    jm.models.load("me/vit")
    with serving(Hub()) as gone:
        pass
    monkeypatch.setenv("HF_ENDPOINT", gone.url)
    message = refusal("me/other")
    assert message.startswith(f"no folder me/other, and {gone.url} cannot be reached for the list of files of me/other")
    assert "Connection refused" in message
    assert message.endswith("check the network, the proxy and HF_ENDPOINT")
    with pytest.warns(UserWarning, match=r"cannot be reached .*\. Taking me/vit from the cache") as told:
        jm.models.load("me/vit")
    assert len(told) == 1
    with pytest.raises(jm.InputError, match="cannot be reached"):
        jm.models.load("me/vit", revision="v2")  # which the cache does not have


def test_downloads_that_are_damaged(hub):
    hub.cut.add("model.safetensors")
    assert "the download of model.safetensors of me/vit is not whole" in refusal("me/vit")
    hub.cut.clear()
    hub.flipped.add("model.safetensors")
    assert "the download of model.safetensors of me/vit is damaged (its SHA-256 is" in refusal("me/vit")
    assert "no whole copy of me/vit" in refusal("me/vit", local_files_only=True)
    hub.flipped.clear()
    assert jm.models.load("me/vit").name == "vit"


def test_places_that_cannot_be_written(hub, tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"config.json of me/vit cannot be written into {place}: " in refusal("me/vit", cache_dir=place)
    for number, message in (
        (errno.ENOSPC, "config.json of me/vit does not fit into .*: No space left on device; make room, or name"),
        (errno.EROFS, "config.json of me/vit cannot be written into .*: Read-only file system; name another place"),
        (errno.EACCES, "config.json of me/vit cannot be written into .*: Permission denied; name another place"),
    ):

        def fails(*args, number=number, **options):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fails)
        with pytest.raises(FileNotFoundError, match=message):
            jm.models.load("me/vit")


def test_without_the_package(hub, monkeypatch):
    jm.models.load("me/vit")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert jm.models.load("me/vit").name == "vit"
    message = refusal("me/gated")
    assert "no folder me/gated, and no whole copy of me/gated in the cache" in message
    assert message.endswith("to download it: pip install 'jaxmoxi[hub]'")


@pytest.mark.parametrize("name", ["a--b/c", "me/" + "x" * 120, "me/vit.git"])
def test_names_that_the_hub_cannot_have(hub, name):
    assert "expected the name of a model as org/name" in refusal(name)


def test_the_command_prints_one_line(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    for arguments, message in (
        (["explain", "--model", "me/gated"], "me/gated is gated on"),
        (["explain", "--model", "me/nothing"], "no folder me/nothing, and"),
        (["bench", "--model", "me/vit", "--revision", "v9"], "has no revision 'v9'"),
        (["bench", "--model", "me/vit", "--local-files-only"], "local_files_only=True keeps it from"),
        (["bench", "--local-files-only"], "--local-files-only need a --model that is a name of the hub"),
        (["explain", "--revision", "v1"], "--revision, --cache-dir and --local-files-only need a --model"),
        (["study", str(tmp_path), "--out", str(tmp_path), "--model", "a/b", "--model", "c/d", "--revision", "x"],
         "--revision needs a single --model"),
    ):  # fmt: skip
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
