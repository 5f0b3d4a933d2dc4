"""What strangers give to `load`: paths, pointers, single files, shards; and what is in them."""

import json
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxmoxi as jm
from jaxmoxi.cli.main import main
from support.checkpoints import HUGGINGFACE, PROCESSOR, TIMM, vit_tensors, write_folder
from support.torch_files import whole, zipped

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 346293852\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be filled."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("source", ["", "  ", "a\0b", 3, None, b"bytes", "~nobody-of-this-name/model", "x" * 5000])
def test_what_is_no_path(source, unchecked):
    with pytest.raises(jm.InputError, match="expected the path of a checkpoint folder|no model folder"):
        jm.models.load(source)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "my" / "vit", tensors=vit_tensors())
    assert jm.models.load("~/my/vit").name == "vit"
    assert jm.models.load(Path("~/my/vit")).name == "vit"


def test_a_weights_file(tmp_path):
    folder = write_folder(tmp_path / "vit", tensors=vit_tensors())
    expected = jm.models.load(folder)
    other = vit_tensors()
    other["classifier.bias"] = other["classifier.bias"] + 1
    save_file(other, folder / "best.safetensors")
    (folder / "last.pth").write_bytes(zipped({n: whole("Float", t, n) for n, t in other.items()}))
    images = jnp.zeros((1, 16, 16, 3))
    np.testing.assert_array_equal(jm.models.load(folder / "model.safetensors").logits(images), expected.logits(images))
    for name in ("best.safetensors", "last.pth"):
        found = jm.models.load(folder / name)
        np.testing.assert_allclose(found.logits(images), np.asarray(expected.logits(images)) + 1, atol=1e-5)
        assert found.name == "vit"
    assert jm.models.load(folder / "config.json").name == "vit"


def test_files_that_cannot_be_loaded_alone(tmp_path):
    save_file(vit_tensors(), tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"has no config.json beside it, .*write one such as"):
        jm.models.load(tmp_path / "model.safetensors")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(jm.InputError, match="is no folder and no weights file"):
        jm.models.load(tmp_path / "photo.png")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_pointers_of_git_lfs(tmp_path, name):
    write_folder(tmp_path, tensors=vit_tensors())
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(jm.InputError, match=rf"{name} is a git-lfs pointer.*git lfs pull"):
        jm.models.load(tmp_path)


def test_a_pointer_in_place_of_a_pytorch_file(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_text(POINTER)
    with pytest.raises(jm.InputError, match="git lfs pull"):
        jm.models.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", ["folder", "empty"])
def test_folders_and_nothing_in_place_of_files(tmp_path, name, kind):
    write_folder(tmp_path, tensors=vit_tensors() if name != "pytorch_model.bin" else None)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir() if kind == "folder" else (tmp_path / name).touch()
    with pytest.raises(
        jm.InputError, match=f"{name} is (not a file|empty|not readable JSON|not a readable safetensors)"
    ):
        jm.models.load(tmp_path)


def sharded(folder, places=None, **shards):
    write_folder(folder)
    for name, tensors in shards.items():
        save_file(tensors, folder / f"{name}.safetensors")
    content = {"weight_map": places} if not isinstance(places, str) else json.loads(places)
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


TENSORS = vit_tensors()
FIRST, REST = dict(list(TENSORS.items())[:5]), dict(list(TENSORS.items())[5:])
PLACES = dict.fromkeys(FIRST, "a.safetensors") | dict.fromkeys(REST, "b.safetensors")


def test_an_index_that_fits(tmp_path):
    model = jm.models.load(sharded(tmp_path, PLACES, a=FIRST, b=REST))
    assert model.class_names == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("places", "shards", "message"),
    [
        (PLACES, dict(a=FIRST), "names the file b.safetensors, which is not there"),
        (PLACES, dict(a=FIRST, b=TENSORS), r"expected \d+ tensors in b.safetensors; the file has"),
        (
            PLACES | {"odd": "a.safetensors"},
            dict(a=FIRST, b=REST),
            "expected 6 tensors in a.safetensors; the file has 5",
        ),
        (PLACES | {"odd": "../b.safetensors"}, dict(a=FIRST, b=REST), "expected the names of weights files beside it"),
        (PLACES | {"odd": "/etc/passwd"}, dict(a=FIRST, b=REST), "expected the names of weights files beside it"),
        (PLACES | {"odd": "config.json"}, dict(a=FIRST, b=REST), "expected the names of weights files beside it"),
        (PLACES | {"odd": None}, dict(a=FIRST, b=REST), "expected weight_map to name a file for each tensor"),
        ([1, 2], dict(a=FIRST, b=REST), "expected weight_map to name a file"),
        (None, dict(a=FIRST, b=REST), "expected weight_map to name a file"),
        ({}, dict(a=FIRST, b=REST), "expected weight_map to name a file"),
        ('{"metadata": {}}', dict(a=FIRST, b=REST), "expected weight_map to name a file"),
    ],
)
def test_indices_that_do_not_fit(tmp_path, places, shards, message):
    with pytest.raises(jm.InputError, match=message):
        jm.models.load(sharded(tmp_path, places, **shards))


def test_an_index_of_pytorch_files(tmp_path):
    write_folder(tmp_path)
    for name, tensors in (("a", FIRST), ("b", REST)):
        (tmp_path / f"{name}.bin").write_bytes(zipped({n: whole("Float", t, n) for n, t in tensors.items()}))
    places = {n: p.replace("safetensors", "bin") for n, p in PLACES.items()}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert set(jm.models.read_tensors(tmp_path)) == set(TENSORS)
    assert jm.models.load(tmp_path).class_names == ("ant", "bee", "cow")


def poisoned(name, change):
    tensors = vit_tensors()
    tensors[name] = change(tensors[name])
    return tensors


def put(value, dtype):
    def change(tensor):
        tensor = tensor.astype(dtype)
        tensor.flat[1] = value
        return tensor

    return change


NAME = "vit.encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(np.nan, np.float32), "holds NaN or infinity"),
        (put(-np.inf, np.float16), "holds NaN or infinity"),
        (put(np.nan, ml_dtypes.bfloat16), "holds NaN or infinity"),
        (put(1e300, np.float64), r"holds 1e\+300, which overflows float32"),
        (put(-1e39, np.float64), r"holds -1e\+39, which overflows float32"),
        (put(1j, np.complex64), "is of complex64; expected floating-point numbers"),
        (put(2**62, np.int64), "is of int64"),
        (put(3, np.int8), "is of int8; expected floating-point numbers: if it is quantised"),
        (put(True, bool), "is of bool"),
    ],
)
def test_numbers_that_are_none_are_refused_by_name(tmp_path, change, message):
    write_folder(tmp_path, tensors=poisoned(NAME, change))
    with pytest.raises(jm.InputError, match=rf"the tensor {NAME} {message}"):
        jm.models.load(tmp_path)


def test_complex_numbers_in_a_pytorch_file(tmp_path):
    write_folder(tmp_path)
    state = {n: whole("Float", t, n) for n, t in vit_tensors().items()}
    for kind in ("ComplexFloat", "ComplexDouble"):
        (tmp_path / "pytorch_model.bin").write_bytes(
            zipped(state | {NAME: whole(kind, vit_tensors()[NAME] + 1j, NAME)})
        )
        with pytest.raises(jm.InputError, match=f"the tensor {NAME} is of complex"):
            jm.models.load(tmp_path)


def test_float8_weights_are_refused_by_name(tmp_path):
    write_folder(tmp_path, tensors=vit_tensors())
    path = tmp_path / "model.safetensors"
    for kind in ("F8_E4M3", "F8_E5M2"):
        wide = path.read_bytes()
        header = json.loads(wide[8 : 8 + int.from_bytes(wide[:8], "little")])
        header[NAME]["dtype"] = kind
        raw = json.dumps(header).encode()
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + wide[8 + int.from_bytes(wide[:8], "little") :])
        with pytest.raises(jm.InputError, match=rf"the tensor {NAME} is of {kind}; .* convert it to F32"):
            jm.models.load(tmp_path)
        path.write_bytes(wide)


def test_which_weights_of_a_training_checkpoint(tmp_path):
    write_folder(tmp_path)
    plain = vit_tensors()
    averaged = {n: t / 2 for n, t in plain.items()}
    checkpoint = {
        "state_dict": {n: whole("Float", t, n) for n, t in plain.items()},
        "state_dict_ema": {n: whole("Float", t, f"ema.{n}") for n, t in averaged.items()},
        "teacher": {n: whole("Float", t * 0, f"teacher.{n}") for n, t in plain.items()},
    }
    (tmp_path / "pytorch_model.bin").write_bytes(zipped(checkpoint))
    bias = {name: tensors["classifier.bias"] for name, tensors in (("plain", plain), ("averaged", averaged))}

    def loaded(**options):
        return np.asarray(jm.models.load(tmp_path, **options).params["head"]["bias"][...])

    with pytest.warns(UserWarning, match="weights state_dict and state_dict_ema; taking state_dict. entry='state_d"):
        np.testing.assert_array_equal(loaded(), bias["plain"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(loaded(entry="state_dict_ema"), bias["averaged"])
        np.testing.assert_array_equal(loaded(entry="state_dict"), bias["plain"])
        assert not loaded(entry="teacher").any()
        assert set(jm.models.read_torch(tmp_path / "pytorch_model.bin", entry="state_dict_ema")) == set(plain)
    for entry in ("optimizer", "epoch", ""):
        with pytest.raises(jm.InputError, match=f"no entry '{entry}' that holds tensors; found state_dict, state_d"):
            loaded(entry=entry)
    write_folder(tmp_path / "safe", tensors=plain)
    with pytest.raises(jm.InputError, match="holds tensors and no entries"):
        jm.models.load(tmp_path / "safe", entry="state_dict_ema")


def test_an_enormous_network_is_refused_before_memory_is_taken(tmp_path):
    import tracemalloc

    tensors = vit_tensors()
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "image_size", "num_labels"):
        settings = {k: v for k, v in HUGGINGFACE.items() if k != "id2label" or key != "num_labels"}
        for number in (10**9, 10**7, 10**29):
            write_folder(tmp_path, settings | {key: number}, tensors)
            tracemalloc.start()
            if key != "num_labels":  # which the weights decide on
                with pytest.raises(jm.InputError):
                    jm.models.load(tmp_path)
            else:
                assert len(jm.models.load(tmp_path).class_names) == 3
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 1 << 25, (key, number, peak)


def test_the_command_prints_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert main(["explain", "--model", "google/vit-base-patch16-224"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxmoxi: error: no folder google/vit-base-patch16-224, and no whole copy")
    assert error.count("\n") == 1


def test_timm_and_processors_together(tmp_path):
    """The processor's file decides, where there are both."""
    folder = write_folder(tmp_path, TIMM, vit_tensors("timm"), PROCESSOR)
    assert jm.models.load(folder).preprocessing.mean == (0.5, 0.4, 0.3)
