"""Files that are damaged or claim more than they hold: each is refused in our own words."""

import pickle
import struct
import zipfile

import numpy as np
import pytest

from support.torch_files import (
    NUMBERS,
    Storage,
    legacy_head,
    pickled,
    read,
    small,
    tensor,
    whole,
    zip_entries,
    zip_of,
    zipped,
)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((1,), (1,), 24),
        ((), (), 24),
        ((2, 12), (13, 1), 0),
        ((3,), (12,), 0),
        ((2, 2), (1 << 62, 1 << 62), 0),
        ((1 << 62,), (1,), 0),
        ((2,), (-1,), 5),
        ((1,), (1,), -1),
        ((-1,), (1,), 0),
        ((2, 2), (1,), 0),
        ((2,), (2, 1), 0),
        ((2.0,), (1,), 0),
        ((True,), (1,), 0),
        ((1,), (1,), None),
        ((1,) * 65, (1,) * 65, 0),
        ((1 << 40,), (0,), 0),  # an expanded view of four terabytes
        ((0, 1 << 70), (1, 1), 0),
    ],
)
def test_out_of_bounds(tmp_path, written, shape, strides, offset):
    with pytest.raises(ValueError, match=r"model\.bin .*(damaged|too few)"):
        read(tmp_path, written({"w": tensor(Storage("Float", NUMBERS), shape, strides, offset)}))


@pytest.mark.parametrize("claimed", [-1, 25, 23, 1 << 40, 1 << 63, 24.0, True])
def test_storage_of_another_length(tmp_path, written, claimed):
    with pytest.raises(ValueError, match=r"model\.bin .*(damaged|too few)"):
        read(tmp_path, written({"w": tensor(Storage("Float", NUMBERS, claimed=claimed), (1,), (1,))}))


def test_many_views_of_one_storage(tmp_path):
    storage = Storage("Byte", np.zeros(1 << 20))
    state = {str(i): tensor(storage, (1 << 20,), (1,)) for i in range(200)}
    with pytest.raises(ValueError, match="too few for the tensors it claims"):
        read(tmp_path, zipped(state))


def test_every_truncation(tmp_path, written):
    content = small(written)
    assert len(read(tmp_path, content)) == 3
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"model\.bin (is|has|lacks) "):
            read(tmp_path, content[:end])


def outcome(tmp_path, content):
    """What was read, or in what words it was refused; anything but a ValueError fails the test."""
    try:
        return read(tmp_path, content)
    except ValueError as error:
        return str(error)


def damaged(content, rng):
    content = bytearray(content)
    for at in rng.integers(len(content), size=rng.integers(1, 4)):
        content[at] = rng.choice(content) if rng.random() < 0.5 else rng.integers(256)
    return bytes(content)


def test_random_damage(tmp_path, written):
    content, rng = small(written), np.random.default_rng(0)
    outcomes = [outcome(tmp_path, damaged(content, rng)) for _ in range(250)]
    refusals = [words for words in outcomes if isinstance(words, str)]
    assert len(refusals) > 100
    assert all(words.startswith(str(tmp_path / "model.bin")) for words in refusals)  # our words, not a library's


def test_random_pickles(tmp_path):
    """Damage that the zip's checksums do not catch first."""
    entries, rng = zip_entries({"model": {"a": whole("Half", [[1, 2], [3, 4]])}}, 4), np.random.default_rng(1)
    contents = [zip_of(entries | {"data.pkl": damaged(entries["data.pkl"], rng)}) for _ in range(250)]
    outcomes = [outcome(tmp_path, content) for content in contents]
    refusals = [words for words in outcomes if isinstance(words, str)]
    assert 100 < len(refusals) < 250
    assert all(words.startswith(str(tmp_path / "model.bin")) for words in refusals)


def test_damaged_archives(tmp_path):
    entries = zip_entries({"w": whole("Float", NUMBERS)})
    with pytest.raises(ValueError, match="compressed entries"):
        read(tmp_path, zip_of(entries, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="its zip entries claim 10"):
        read(tmp_path, zip_of(entries | {"notes": bytes(1_000_000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="lacks its entry archive/data/0"):
        read(tmp_path, zip_of({n: c for n, c in entries.items() if n != "data/0"}))
    with pytest.raises(ValueError, match="0 entries data.pkl"):
        read(tmp_path, zip_of({"word/document.xml": "<w/>"}))
    with pytest.raises(ValueError, match="2 entries data.pkl"):
        read(tmp_path, zip_of(entries | {"more/data.pkl": b"N."}))
    with pytest.raises(ValueError, match="TorchScript"):
        read(tmp_path, zip_of(entries | {"constants.pkl": b"N."}))
    content = zip_of(entries)
    at = content.index(entries["data/0"])
    with pytest.raises(ValueError, match="damaged at its entry archive/data/0.*CRC"):
        read(tmp_path, content[:at] + b"\x01" + content[at + 1 :])


def test_damaged_legacy_storages(tmp_path):
    description, storages = pickled({"w": whole("Float", NUMBERS)}, 2, legacy=True)
    start, data = legacy_head() + description, struct.pack("<q", 24) + storages["0"].tobytes()
    assert list(read(tmp_path, start + pickle.dumps(["0"], 2) + data)) == ["w"]
    for keys, match in [([], "lacks the bytes of storage 0"), (["9"], "lists storages"), ({"0": 1}, "lists storages")]:
        with pytest.raises(ValueError, match=match):
            read(tmp_path, start + pickle.dumps(keys, 2) + data)
    with pytest.raises(ValueError, match="truncated or damaged at storage 0"):
        read(tmp_path, start + pickle.dumps(["0"], 2) + struct.pack("<q", 23) + data[8:])
