"""Models by their name, from a small hub on loopback: what is fetched, from where, with which token, and kept where."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxmoxi as jm
from jaxmoxi.models.checkpoints import hub as hub_module
from support.checkpoints import HUGGINGFACE, TIMM, vit_tensors, write_folder
from support.explain import write_model
from support.hub import Hub, commit_of, serving
from support.torch_files import whole, zipped

pytest.importorskip("huggingface_hub")

TENSORS = vit_tensors()
FIRST, REST = dict(list(TENSORS.items())[:5]), dict(list(TENSORS.items())[5:])
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)
USUAL = ["config.json", "preprocessor_config.json", "model.safetensors"]


@pytest.fixture
def hub(hub_environment, monkeypatch):
    """A hub with google/vit-tiny, which HF_ENDPOINT names."""
    hub = Hub()
    with serving(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("google/vit-tiny", write_folder(hub_environment / "source", tensors=TENSORS))
        yield hub


@pytest.fixture
def cache(hub_environment):
    return hub_environment / "home" / "hub"


def logits(model):
    return np.asarray(model.logits(IMAGES))


def quietly(name="google/vit-tiny", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return jm.models.load(name, **options)


def test_a_name_is_its_folder(hub, cache):
    folder = hub.repositories["google/vit-tiny"]["main"]
    model, expected = quietly(), jm.models.load(folder)
    np.testing.assert_array_equal(logits(model), logits(expected))
    assert (model.name, model.class_names, model.preprocessing) == (
        "vit-tiny", expected.class_names, expected.preprocessing,
    )  # fmt: skip
    assert hub.fetched() == (USUAL, USUAL)
    assert hub.tokens == [None] * len(hub.requests)
    commit = commit_of(folder)
    assert (cache / "models--google--vit-tiny" / "refs" / "main").read_text() == commit
    snapshot = cache / "models--google--vit-tiny" / "snapshots" / commit
    assert sorted(p.name for p in snapshot.iterdir()) == sorted(USUAL)
    hub.requests.clear()
    np.testing.assert_array_equal(logits(quietly()), logits(expected))
    assert hub.requests == [("GET", "/api/models/google/vit-tiny")]  # whether there is a newer commit


def test_the_package_itself_finds_what_was_downloaded(hub, cache):
    import huggingface_hub

    quietly()
    found = huggingface_hub.hf_hub_download(
        "google/vit-tiny", "model.safetensors", cache_dir=cache, local_files_only=True
    )
    assert Path(found).samefile(cache / "models--google--vit-tiny" / "snapshots" / Path(found).parent.name / USUAL[2])


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (("model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"), USUAL[2:]),
        (("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tf_model.h5"), ["pytorch_model.bin"]),
        (("best.safetensors", "other/model.safetensors", "README.md"), ["best.safetensors"]),
        (("weights.pth", "rng_state.pth", "big_vision.npz"), ["weights.pth"]),
    ],
)
def test_only_the_files_that_are_read_are_fetched(hub, tmp_path, files, fetched):
    folder = write_folder(tmp_path / "many")
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("not read")
    path = folder / fetched[0]
    if path.suffix == ".safetensors":
        save_file(TENSORS, path)
    else:
        path.write_bytes(zipped({n: whole("Float", t, n) for n, t in TENSORS.items()}))
    hub.add("me/many", folder)
    model = quietly("me/many")
    assert hub.fetched()[0] == ["config.json", "preprocessor_config.json", *fetched]
    np.testing.assert_allclose(logits(model), logits(jm.models.load(path)), atol=1e-6)
    hub.requests.clear()
    quietly("me/many", local_files_only=True)
    assert hub.requests == []


def test_the_archive_of_arrays_is_taken_where_there_is_nothing_else(hub, tmp_path, cache):
    folder = write_folder(tmp_path / "jax")
    np.savez(folder / "augreg.npz", a=np.zeros(3))
    hub.add("me/jax", folder)
    with pytest.raises(jm.InputError):  # of these arrays no network can be made
        jm.models.load("me/jax")
    assert hub.fetched()[0] == ["config.json", "preprocessor_config.json", "augreg.npz"]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(hub, tmp_path, kind):
    folder = write_folder(tmp_path / "shards")
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    places = {}
    for number, part in enumerate((FIRST, REST), 1):
        name = f"{stem}-{number:05}-of-00002.{kind}"
        places |= dict.fromkeys(part, name)
        if kind == "safetensors":
            save_file(part, folder / name)
        else:
            (folder / name).write_bytes(zipped({n: whole("Float", t, n) for n, t in part.items()}))
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "tf_model.h5").write_text("not read")
    hub.add("me/shards", folder)
    np.testing.assert_array_equal(logits(quietly("me/shards")), logits(jm.models.load(folder)))
    assert hub.fetched()[0][2:] == [f"{stem}.{kind}.index.json", *sorted(set(places.values()))]
    hub.requests.clear()
    quietly("me/shards")
    quietly("me/shards", local_files_only=True)
    assert len(hub.requests) == 1


def test_a_repository_of_timm_has_no_processor(hub, tmp_path):
    hub.add("timm/vit_tiny.in1k", write_folder(tmp_path / "timm", TIMM, vit_tensors("timm"), None))
    assert quietly("timm/vit_tiny.in1k").name == "vit_tiny.in1k"
    assert hub.fetched()[0] == ["config.json", "model.safetensors"]


def test_a_model_that_was_renamed(hub, monkeypatch):
    hub.moved["old/name"] = "google/vit-tiny"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    np.testing.assert_array_equal(logits(quietly("old/name")), logits(quietly()))
    assert quietly("old/name", local_files_only=True).name == "name"
    assert set(hub.tokens) == {"hf_good"}


def test_what_another_tool_has_left_out_is_fetched(hub, cache):
    import huggingface_hub

    for file in ("config.json", "model.safetensors"):  # as transformers' models do, without their processor
        huggingface_hub.hf_hub_download("google/vit-tiny", file, cache_dir=cache, endpoint=hub.url)
    hub.requests.clear()
    quietly()
    assert hub.fetched()[0] == ["preprocessor_config.json"]


def test_revisions(hub, tmp_path, cache):
    changed = TENSORS | {"classifier.bias": TENSORS["classifier.bias"] + 1}
    commit = hub.add("google/vit-tiny", write_folder(tmp_path / "v1", tensors=changed), "feature/one")
    old, new = quietly(), quietly(revision="feature/one")
    np.testing.assert_allclose(logits(new), logits(old) + 1, atol=1e-5)
    hub.requests.clear()
    np.testing.assert_array_equal(logits(quietly(revision=commit)), logits(new))
    assert hub.requests == []  # a commit does not change
    for address in (
        "hf-hub:google/vit-tiny@feature/one", "hf://google/vit-tiny@feature%2Fone",
        f"{hub.url}/google/vit-tiny/tree/feature%2Fone", Path(f"{hub.url}/google/vit-tiny/commit/{commit}"),
    ):  # fmt: skip
        np.testing.assert_array_equal(logits(quietly(address)), logits(new))
    np.testing.assert_array_equal(logits(quietly(revision="feature/one", local_files_only=True)), logits(new))
    np.testing.assert_array_equal(logits(quietly(cache / "models--google--vit-tiny", revision=commit)), logits(new))
    for revision in ("other", "0" * 40):
        with pytest.raises(FileNotFoundError, match=f"no whole copy of google/vit-tiny of revision {revision} in the"):
            jm.models.load("google/vit-tiny", revision=revision, local_files_only=True)
    with pytest.raises(jm.InputError, match="is the address of revision x, and revision='y'; give one"):
        jm.models.load("hf-hub:google/vit-tiny@x", revision="y")


@pytest.mark.parametrize("revision", ["", "../main", "/main", "a b", "a..b", "main/", "-x", 3, "x" * 999])
def test_what_is_no_revision(hub, revision, unchecked):
    with pytest.raises(jm.InputError, match="expected revision as the name of a branch, a tag or a commit; got"):
        jm.models.load("google/vit-tiny", revision=revision)
    assert hub.requests == []


def test_a_newer_commit_is_taken_when_it_is_whole(hub, tmp_path, cache):
    old = quietly()
    changed = TENSORS | {"classifier.bias": TENSORS["classifier.bias"] + 1}
    hub.add("google/vit-tiny", write_folder(tmp_path / "new", tensors=changed))
    hub.cut.add("model.safetensors")
    with pytest.warns(UserWarning, match=r"is not whole .*\. Taking google/vit-tiny from the cache, commit"):
        np.testing.assert_array_equal(logits(jm.models.load("google/vit-tiny")), logits(old))
    np.testing.assert_array_equal(logits(quietly(local_files_only=True)), logits(old))
    hub.cut.clear()
    hub.requests.clear()
    np.testing.assert_allclose(logits(quietly()), logits(old) + 1, atol=1e-5)
    assert hub.fetched()[0] == ["model.safetensors"]
    np.testing.assert_allclose(logits(quietly(local_files_only=True)), logits(old) + 1, atol=1e-5)


def test_the_places_of_the_cache(hub, tmp_path, monkeypatch):
    def kept(folder):
        return (folder / "models--google--vit-tiny" / "refs" / "main").is_file()

    monkeypatch.setenv("HOME", str(tmp_path))
    quietly(cache_dir=tmp_path / "mine")
    quietly(cache_dir="~/with space/ünï")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    quietly()
    monkeypatch.setenv("HF_HUB_CACHE", "$HF_HOME/elsewhere")
    quietly()
    for place in ("mine", "with space/ünï", "hf/hub", "hf/elsewhere"):
        assert kept(tmp_path / place)
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="local_files_only=True keeps it from being downloaded"):
        jm.models.load("google/vit-tiny", local_files_only=True)
    quietly(cache_dir=tmp_path / "mine", local_files_only=True)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(hub, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(FileNotFoundError, match=f"no whole copy of google/vit-tiny .*{variable}=1 keeps it from"):
        jm.models.load("google/vit-tiny")
    monkeypatch.setenv(variable, "0")
    quietly()
    monkeypatch.setenv(variable, "1")
    hub.requests.clear()
    quietly()
    assert hub.requests == []


def test_offline_since_the_package_was_imported(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE=1 keeps it from"):
        jm.models.load("google/vit-tiny")


def test_tokens(hub, monkeypatch):
    hub.private.add("google/vit-tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    quietly()
    assert hub.tokens == ["hf_good"] * 7


def test_the_hub_at_its_address_only(hub, hub_environment, monkeypatch):
    """A second hub at another address, named after the package was imported."""
    quietly()
    other = Hub()
    other.add("me/new", write_folder(hub_environment / "other", tensors=TENSORS))
    with serving(other):
        monkeypatch.setenv("HF_ENDPOINT", other.url + "/")
        quietly("me/new")
        assert other.fetched()[0] == USUAL


def test_a_folder_comes_before_a_name(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = HUGGINGFACE | {"id2label": {"0": "x", "1": "y", "2": "z"}}
    write_folder(tmp_path / "google" / "vit-tiny", settings, TENSORS)
    assert quietly("google/vit-tiny").class_names == quietly(Path("google/vit-tiny")).class_names == ("x", "y", "z")
    assert hub.requests == []
    with pytest.warns(UserWarning, match="comes before a name of the hub; revision='v1' is not used"):
        assert jm.models.load("google/vit-tiny", revision="v1").class_names == ("x", "y", "z")
    assert quietly("hf-hub:google/vit-tiny").class_names == ("ant", "bee", "cow")


def test_a_network_that_is_not_read_is_refused_before_its_weights_are_fetched(hub, tmp_path):
    hub.add("me/bert", write_folder(tmp_path / "bert", HUGGINGFACE | {"model_type": "bert"}, TENSORS))
    with pytest.raises(jm.InputError, match="expected a model_type of .*got 'bert'"):
        jm.models.load("me/bert")
    assert hub.fetched()[0] == ["config.json"]


def test_downloads_without_bars():
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    with hub_module.without_bars():
        assert are_progress_bars_disabled()
    assert are_progress_bars_disabled() == before


@pytest.mark.slow
def test_the_command_by_name(hub, tmp_path):
    """As in a shell, where the environment is there before the packages are imported."""
    (tmp_path / "tiny").mkdir()
    write_model(tmp_path / "tiny")
    hub.add("me/tiny", tmp_path / "tiny", "v1")
    command = [sys.executable, "-m", "jaxmoxi", "explain", "--model", "me/tiny", "--revision", "v1", "--until", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir or tmp_path / "xla")}
    done = subprocess.run(
        [*command, "--cache-dir", "kept", "--out", "out", "--quiet"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.fetched()[0] == USUAL
    assert (tmp_path / "kept" / "models--me--tiny" / "refs" / "v1").is_file()
    assert json.loads(next((tmp_path / "out").glob("*.json")).read_text())["model"] == "tiny"
