"""`benchmarks/accelerator.py`: every part runs, in a process that has none of the packages a lent machine may lack."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from support.checkpoints import CONFIG, HUGGINGFACE, PROCESSOR, vit_tensors, write_folder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ABSENT = (
    "beartype", "dm_pix", "equinox", "grain", "huggingface_hub", "jaxtyping", "pyarrow", "safetensors", "shapiq",
    "torch", "tqdm", "tyro",
)  # fmt: skip
WITHOUT = f"import sys; sys.modules |= dict.fromkeys({ABSENT}); sys.path.insert(0, {str(BENCHMARKS)!r}); "
PARTS = ["device", "large", "orders", "small", "images", "p2p", "searches", "pixels"]


def start(*arguments, code="import accelerator; sys.exit(accelerator.main(sys.argv[1:]))"):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(BENCHMARKS.parent)}
    command = [sys.executable, "-c", WITHOUT + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The record of a tiny run, what it printed, and where it wrote."""
    place = tmp_path_factory.mktemp("accelerator")
    config = dataclasses.replace(CONFIG, image_size=24)
    processor = {**PROCESSOR, "size": {"height": 24, "width": 24}}
    folder = write_folder(place / "model", {**HUGGINGFACE, "image_size": 24}, vit_tensors(config=config), processor)
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(place / f"{i}.png")
    (place / "0-broken.png").write_bytes(b"no picture")
    done = start("--tiny", "--model", folder, "--photos", place, "--out", place / "out" / "a.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((place / "out" / "a.json").read_text()), done.stdout, place


def test_every_part_runs_without_the_other_packages(tiny):
    record, printed, _ = tiny
    assert [part["name"] for part in record["parts"]] == PARTS
    assert [part["status"] for part in record["parts"]] == ["ran"] * len(PARTS), printed
    assert record["stand-ins for missing packages"] == ["jaxtyping", "safetensors"]
    assert record["photos"].startswith("2 of accelerator")
    assert record["photos"].endswith(", unreadable: 0-broken.png")
    assert record["environment"]["jax"] == jax.__version__
    for part in record["parts"]:
        assert part["rows"]
        assert part["seconds"] > 0
        assert part["peak_bytes"] > 2**20
        for row in part["rows"]:
            assert row["status"] == "measured"
            if "seconds" in row:
                assert row["rate"] > 0
                assert 0 < row["seconds"]["least"] <= row["seconds"]["median"] <= row["seconds"]["most"]
    assert sum(part["compile_seconds"] for part in record["parts"]) > 1


def test_rates_follow_from_seconds_and_from_the_matmul_rate(tiny):
    parts = {part["name"]: part["rows"] for part in tiny[0]["parts"]}
    best = tiny[0]["matmul_flops_per_second"]
    products = [row for row in parts["device"] if row["what"].startswith("matrix product, float32, ")]
    assert best["float32"] == max(row["flops_per_second"] for row in products)
    row = parts["small"][0]
    assert row["what"].endswith("float32, 6 tokens, batch 4")
    assert row["rate"] == pytest.approx(4 / row["seconds"]["median"])
    rates = importlib.import_module("jaxmoxi.cli.rates")
    flops = rates.forward_flops(dataclasses.replace(CONFIG, image_size=24), 6)
    assert row["flops_per_second"] == pytest.approx(flops * row["rate"])
    assert row["matmul_share"] == pytest.approx(row["flops_per_second"] / best["float32"])


def test_orders_and_their_agreement(tiny):
    rows = next(part["rows"] for part in tiny[0]["parts"] if part["name"] == "orders")
    orders = {row["what"]: [int(p) for p in row["order"].split()] for row in rows if "order" in row}
    half, whole = (orders[f"full insertion order, {dtype}"] for dtype in ("bfloat16", "float32"))
    assert sorted(half) == sorted(whole) == list(range(9))
    told = rows[-1]["first difference at place"]
    assert told == next((i + 1 for i, pair in enumerate(zip(half, whole, strict=True)) if len({*pair}) == 2), "none")
    assert rows[-1]["players in common"]["of the first 8"] == len({*half[:8]} & {*whole[:8]})
    assert 0 < rows[-1]["area under the probability of the float32 order"] < 1


def test_the_table_says_what_the_json_says(tiny):
    record, _, place = tiny
    lines = (place / "out" / "a.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + sum(1 + len(part["rows"]) for part in record["parts"])
    assert len({line.count("|") for line in table}) == 1
    row = record["parts"][1]["rows"][0]
    line = next(line for line in table if row["what"] in line)
    assert f"{row['rate']:,.5g} coalitions/s" in line
    assert f"{row['matmul_share']:.0%}" in line


@pytest.fixture
def parts(monkeypatch):
    """The modules of the benchmark, imported here, where jaxtyping is."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"_accelerator.{name}")


def test_what_fails_and_what_has_no_time_is_written_down(parts, tmp_path):
    module = parts("run")
    run = module.Run(
        None, None, {"question": "?"}, out=tmp_path / "a.json", started=parts("run").time.monotonic(), minutes=1
    )

    def measure(run):
        run.row("good", lambda: {"rate": 1.0, "unit": "things"})
        run.row("bad", lambda: 1 / 0)
        run.row("long", lambda: {}, expected=1e6)
        raise MemoryError("all of it")

    run.all_parts([module.Part("a", "A", measure, share=0.5), module.Part("b", "B", lambda run: None, 0.1, least=1e6)])
    first, second = json.loads((tmp_path / "a.json").read_text())["parts"]
    assert [row["status"] for row in first["rows"]] == ["measured", "failed", "not run: time"]
    assert first["rows"][1]["error"].startswith("ZeroDivisionError: division by zero (at ")
    assert first["status"] == "failed"
    assert first["error"].startswith("MemoryError: all of it")
    assert second["status"] == "not run: time"
    assert "not run: time" in (tmp_path / "a.md").read_text()


def test_the_end_of_the_budget_ends_the_process_with_the_record(tmp_path):
    code = """
import time
from _accelerator.run import Part, Run
from pathlib import Path
def measure(run):
    run.row("short", lambda: {})
    run.row("endless", lambda: time.sleep(100))
run = Run(None, None, {"question": "?"}, out=Path(sys.argv[1]), started=time.monotonic(), minutes=11 / 60)
run.all_parts([Part("a", "A", measure, share=1.0), Part("b", "B", measure, share=1.0)])
"""
    done = start(tmp_path / "a.json", code=code)
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "a.json").read_text())["parts"]
    assert (first["status"], second["status"]) == ("not finished: time", "not run: time")
    assert [row["what"] for row in first["rows"]] == ["short"]


def test_a_memory_that_is_too_small_halves_the_batch(parts):
    def run(count):
        if count > 3:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes.")
        return {"rate": count}

    halving = parts("measure").halving
    assert halving(16, run) == {"rate": 2, "out of memory, so halved": "from 16 to 2"}
    assert halving(3, run) == {"rate": 3}
    with pytest.raises(ZeroDivisionError):
        halving(4, lambda count: 1 / 0)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (10, 30, {"peak_bytes": 30, "peak_from": "allocator"}),  # this block raised the peak of the process
        (30, 30, {"peak_bytes": 20, "peak_from": "samples"}),  # an earlier one had raised it as high
        (None, None, {"peak_bytes": 20, "peak_from": "process"}),
    ],
)
def test_peak_memory_says_where_it_is_from(parts, monkeypatch, before, after, told):
    measure, sampled = parts("measure"), threading.Event()
    peaks, in_use = iter([before, after]), iter([5, 20])
    monkeypatch.setattr(measure, "_allocator_peak", lambda: next(peaks))
    monkeypatch.setattr(measure, "_bytes_in_use", lambda: next(in_use, None) or sampled.set())
    with measure.PeakMemory() as memory:
        assert sampled.wait(10)
    assert memory.record() == told


@pytest.mark.parametrize(("backend", "forms"), [("gpu", ["heads", "batched"]), ("tpu", ["heads", "batched", "pallas"])])
def test_the_first_row_is_measured_in_every_form_of_attention(parts, monkeypatch, backend, forms):
    forwards, sizes, rows = parts("forwards"), parts("sizes"), []
    monkeypatch.setattr(
        forwards, "_rows", lambda run, model, name, forwards: rows.append((model.config.attention, forwards))
    )
    monkeypatch.setattr(forwards.jax, "default_backend", lambda: backend)
    model = parts("subjects").random_vit(sizes.TINY.large)
    forwards._every_form(SimpleNamespace(sizes=sizes.ACCELERATOR), model, ("first", "second"))
    assert rows == [(None, ("first", "second")), *((form, ("first",)) for form in forms)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_the_stand_in_reads_what_safetensors_writes(parts, tmp_path, dtype):
    tensors = {
        "b": np.asarray(jnp.arange(6).reshape(2, 3)).astype(jnp.dtype(dtype)),
        "none": np.zeros((0, 3), jnp.dtype(dtype)),
        "a": np.asarray(1).astype(jnp.dtype(dtype)),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    read = parts("stand_ins").load_file(tmp_path / "x.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read[name], tensor)


def test_counted_operations_of_a_resnet(parts):
    """Published: 1.814 billion multiply-adds. Of a small one XLA counts all but what meets the margin."""
    subjects, config = parts("subjects"), parts("sizes").ACCELERATOR.pixels[0]
    assert subjects.resnet_flops(config) / 2 == pytest.approx(1.814e9, rel=1e-3)
    small = parts("sizes").TINY.pixels[0]
    model = subjects.random_resnet(dataclasses.replace(small, image_size=256))
    # `classify` and `_chain` are what `features` chooses on an accelerator: convolutions, not the CPU's own forms.
    network = model.network()
    convolve = importlib.import_module("jaxmoxi.models.networks.convolution").convolve
    counted = jax.jit(lambda x: network._chain(x, convolution=convolve)).lower(jnp.zeros((1, 256, 256, 3)))
    assert counted.cost_analysis()["flops"] == pytest.approx(subjects.resnet_flops(model.config), rel=0.05)


def test_counted_operations_of_a_vision_transformer(parts):
    """Three layers: the loop between the first and the last runs once, and XLA counts a loop's body once."""
    subjects, config = parts("subjects"), parts("sizes").TINY.large
    model = subjects.random_vit(dataclasses.replace(config, hidden_size=192, mlp_dim=768))
    tokens = jax.tree.map(lambda t: jnp.broadcast_to(t, (8, *t.shape)), model.embed_tokens(jnp.zeros((24, 24, 3))))
    program = jax.jit(lambda model, tokens: model.encode_tokens(tokens, jnp.ones((8, 9), bool)))
    counted = program.lower(model, tokens).cost_analysis()["flops"] / 8
    assert counted == pytest.approx(subjects.coalition_flops(model), rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "missing"], "accelerator: no model folder missing"),
        (["--photos", "."], "holds no photo that can be read; expected a folder of images"),
        (["--out", "a.txt"], "--out: expected a name that ends in .json; got a.txt"),
        (["--minutes", "0.1"], "--minutes: expected at least a quarter of one; got 0.1"),
    ],
)
def test_wrong_options_end_before_anything_is_measured(parts, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # a tiny run adds to them, this once
    parts("run")
    accelerator = importlib.import_module("accelerator")
    try:
        code = accelerator.main(["--tiny", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "accelerator.json").exists()
