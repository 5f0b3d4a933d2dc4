"""Thousands of damaged config files, preprocessor files and headers: each loads or is one error made for users."""

import copy
import json
import struct
import warnings

import numpy as np
import pytest

import jaxmoxi as jm
from support.checkpoints import HUGGINGFACE, MOBILENET, PROCESSOR, TIMM, mobilenet_tensors, vit_tensors, write_folder

# What may stand where something else belongs.
ODD = [
    None, True, False, 0, -1, 1, 2, 3, 7, 12.0, 12.5, 1e-30, 1e300, -1e300, 10**9, 10**18, 10**29, "", "12", "gelu",
    "NaN", "\ud800", "\0", "../../etc/passwd", [], [1], [3, 16, 16], [16, 16], [0.5] * 3, [[1]], [None], {}, {"0": "x"},
    {"a": 1}, {"height": 16, "width": 16}, {"height": None, "width": "16"}, {"shortest_edge": 10**9}, {"0": None},
]  # fmt: skip
TEXTS = [
    "", "null", "[]", "3", '"text"', "{", "{}", '{"a": NaN}', '{"model_type": Infinity}', "[" * 100_000,
    '{"a":' * 100_000, '{"hidden_size": 1' + "0" * 400 + "}", '{"hidden_size": 1' + "0" * 5000 + "}",
    '{"hidden_size": 1e400}', '{"model_type": "vit", "model_type": "deit"}', "\ufeff{}", "{'a': 1}", "<html>",
]  # fmt: skip


def places(tree, path=()):
    """The path of every value in nested objects and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(tree, rng):
    tree = copy.deepcopy(tree)
    for _ in range(rng.integers(1, 4)):
        found = list(places(tree))
        if not found:
            break
        *path, last = found[rng.integers(len(found))]
        parent = tree
        for key in path:
            parent = parent[key]
        if rng.random() < 0.15:
            del parent[last]
        else:
            parent[last] = copy.deepcopy(ODD[rng.integers(len(ODD))])
            if isinstance(parent, dict) and rng.random() < 0.1:
                parent[str(rng.choice(["use_mask_token", "quantization_config", "odd", "auto_map"]))] = parent[last]
    return tree


def outcome(folder):
    """The model, or the error's text. Anything but an error made for users fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return jm.models.load(folder)
        except jm.InputError as error:
            text = str(error)
    assert len(text) < 2000
    return text


CASES = {
    "vit": (HUGGINGFACE, PROCESSOR, vit_tensors),
    "timm": (TIMM, None, lambda: vit_tensors("timm")),
    "mobilenet": (MOBILENET, None, mobilenet_tensors),
}


def fuzz(folder, case, count, seed):
    settings, processor, tensors = CASES[case]
    write_folder(folder, settings, tensors(), processor)
    assert not isinstance(outcome(folder), str)
    rng, loaded = np.random.default_rng(seed), 0
    for _ in range(count):
        if processor is not None and rng.random() < 0.5:
            write_folder(folder, settings, None, mutated(processor, rng))
        else:
            write_folder(folder, mutated(settings, rng), None, processor)
        found = outcome(folder)
        if not isinstance(found, str):
            loaded += 1
            assert found.preprocessing.size == (found.config.image_size,) * 2
            assert found.config.image_size <= 1 << 14
    return loaded


@pytest.mark.parametrize("case", CASES)
def test_damaged_settings(tmp_path, case):
    assert fuzz(tmp_path, case, 40 if case != "mobilenet" else 20, seed=0) < 40


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(1, 4))
def test_thousands_of_damaged_settings(tmp_path, case, seed):
    loaded = fuzz(tmp_path, case, 1000 if case != "mobilenet" else 200, seed)
    assert loaded > 0


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_texts_that_are_no_settings(tmp_path, name):
    write_folder(tmp_path, tensors=vit_tensors())
    for text in TEXTS:
        (tmp_path / name).write_text(text)
        found = outcome(tmp_path)
        assert isinstance(found, str) or (text == "{}" and name != "config.json"), text[:40]


def test_encodings_other_than_utf8(tmp_path):
    write_folder(tmp_path, tensors=vit_tensors())
    text = (tmp_path / "config.json").read_text()
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        (tmp_path / "config.json").write_bytes(text.encode(encoding))
        assert "is not readable JSON" in outcome(tmp_path)
    (tmp_path / "config.json").write_bytes(text.replace("ant", "fourmi é").encode("latin-1"))
    assert "is not UTF-8" in outcome(tmp_path)


def with_header(header, data):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def split(path):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def header_fuzz(folder, count, seed):
    write_folder(folder, tensors=vit_tensors())
    path = folder / "model.safetensors"
    header, data = split(path)
    rng, loaded = np.random.default_rng(seed), 0
    for _ in range(count):
        content = bytearray(with_header(mutated(header, rng) if rng.random() < 0.7 else header, data))
        if rng.random() < 0.4:
            for at in rng.integers(0, min(len(content), 3000), size=rng.integers(1, 4)):
                content[at] = rng.integers(256)
        path.write_bytes(bytes(content[: rng.integers(len(content))] if rng.random() < 0.1 else content))
        loaded += not isinstance(outcome(folder), str)
    return loaded


def test_damaged_headers(tmp_path):
    header_fuzz(tmp_path, 40, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_thousands_of_damaged_headers(tmp_path, seed):
    header_fuzz(tmp_path, 1000, seed)
