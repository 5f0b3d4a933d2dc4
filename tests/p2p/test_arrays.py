"""One bit of a model on disk: it is refused, or it changes nothing."""

import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from jaxmoxi import p2p
from jaxmoxi.errors import InputError
from jaxmoxi.p2p import arrays
from support.trainer import CONFIG, NAMES


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def flip(path, rng):
    """Changes one bit of a file, and returns what it was."""
    good = path.read_bytes()
    bad = bytearray(good)
    bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    path.write_bytes(bad)
    return good


def outcomes(folder, model, flips, seed):
    """ "refused" or "same" for bits flipped in every file of a model; anything else fails."""
    rng, found = random.Random(seed), []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
        for _ in range(flips):
            good = flip(path, rng)
            try:
                loaded = p2p.load(folder)
                assert equal(loaded, model), path
                assert loaded.config == CONFIG, path
                assert p2p.load_class_names(folder) == NAMES, path
                found.append("same")
            except InputError:
                found.append("refused")
            path.write_bytes(good)
    return found


def test_one_bit_of_a_saved_model(fresh_model, saved):
    assert "refused" in outcomes(saved, fresh_model, 1, seed=0)


@pytest.mark.slow
def test_many_bits_of_a_saved_model(fresh_model, saved):
    assert outcomes(saved, fresh_model, 30, seed=1).count("refused") > 50


def test_one_bit_of_the_stored_numbers(saved, capfd):
    largest = max((p for p in saved.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    bad = bytearray(largest.read_bytes())
    bad[len(bad) // 2] ^= 1
    largest.write_bytes(bad)
    with pytest.raises(ValueError, match="arrays-.* is damaged or no checkpoint"):
        p2p.load(saved)
    assert capfd.readouterr().err == ""  # no page of tracebacks


def test_the_array_that_differs_is_named(fresh_model, tmp_path):
    flat = arrays.flatten(fresh_model)
    written = arrays.with_checksums(flat)
    changed = flat["classifier/head/bias"].copy()
    changed.view(np.uint32)[1] ^= 1
    for name, value in (("classifier/head/bias", changed), ("classifier/head/bias", changed[:2])):
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        ocp.save(str(tmp_path / "a"), {**written, name: value})
        with pytest.raises(ValueError, match="the array 'classifier/head/bias' is not the one that was written"):
            arrays.read_arrays(tmp_path / "a")


def test_models_of_older_versions_have_no_checksums(fresh_model, saved):
    record = json.loads((saved / "config.json").read_text())
    folder = saved / record["arrays"]
    shutil.rmtree(folder)
    ocp.save(str(folder), arrays.flatten(fresh_model))
    del record["checksum"]
    (saved / "config.json").write_text(json.dumps(record))
    assert equal(p2p.load(saved), fresh_model)
    example = Path(__file__).parents[2] / "examples" / "scenes" / "model"
    assert "checksum" not in json.loads((example / "config.json").read_text())
    assert p2p.load(example).config.num_classes == 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"fill": 0.0', '"fill": 0.5'),
        ('"square"', '"squash"'),
        ("0.485", "0.495"),
        ('"num_heads": 2', '"num_heads": 1'),
    ],
)
def test_a_changed_record_is_refused(saved, old, new):
    path = saved / "config.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    for read in (p2p.load, p2p.load_class_names):
        with pytest.raises(ValueError, match=r"config.json is damaged .*does not fit its checksum"):
            read(saved)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe{}", b'{"config": 3}', b'{"config": {}, "arrays": 3}',
     b'{"config": {}, "arrays": "../elsewhere"}', b'{"config": {}, "class_names": "disc"}',
     b"[" * 100_000, b'{"config": {}, "checksum": 1}', b'{"config": {"num_classes": null}}'],
)  # fmt: skip
def test_other_content_of_a_record_is_one_error(saved, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(InputError):
        p2p.load(saved)


def test_buckets_are_no_folders_of_this_machine(fresh_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (lambda at: p2p.save(at, fresh_model), p2p.load, p2p.load_class_names):
        for address in ("gs://bucket/run", "s3://bucket/run", Path("gs://bucket/run")):
            with pytest.raises(
                ValueError, match="expected a folder of this machine; got 'gs:|expected a folder .*'s3:"
            ):
                call(address)
    assert not list(tmp_path.iterdir())
