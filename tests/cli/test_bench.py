"""`jaxmoxi bench`: what it measures, and how it ends when an option is wrong. No figure is judged here."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxmoxi.cli import bench as _bench
from jaxmoxi.cli import main as cli
from jaxmoxi.cli import shared as _command
from jaxmoxi.models.networks.vit import VisionTransformerConfig

TINY = VisionTransformerConfig(
    image_size=32, patch_size=8, hidden_size=32, num_layers=3, num_heads=2, mlp_dim=64, num_classes=5
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)
    monkeypatch.setattr(_command, "start_devices", lambda: None)  # one of the eight simulated ones
    monkeypatch.setattr(_bench, "SIZES", {"tiny": TINY})
    genuine = _bench.matmul_rate
    monkeypatch.setattr(_bench, "matmul_rate", lambda dtype, mesh: genuine(dtype, size=64, repeats=2, mesh=mesh))


def test_prints_and_writes_every_row(tmp_path, capsys):
    out = tmp_path / "new" / "bench.json"
    command = ["bench", "--tokens", "5", "17", "--batches", "2", "4", "--repeats", "2"]
    assert cli.main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    record = json.loads(out.read_text())
    assert len(record["rows"]) == 4
    assert [tuple(map(row.get, ("dtype", "tokens", "batch"))) for row in record["rows"][:3]] == [
        ("float32", 5, 2),
        ("float32", 5, 4),
        ("float32", 17, 2),
    ]
    assert printed[-1] == f"wrote {out}"
    for row, line in zip(record["rows"], printed[2:-1], strict=True):
        assert line == _bench.line(row)
        assert row["forwards_per_second"] == pytest.approx(row["batch"] / row["seconds"]["median"])
        assert row["seconds"]["least"] <= row["seconds"]["median"] <= row["seconds"]["most"]
    assert record["versions"]["jax"] == jax.__version__


def test_counted_operations_are_those_of_the_program():
    """XLA counts the same products, and the small change of norms and activations on top."""
    config = VisionTransformerConfig(
        image_size=32, patch_size=8, hidden_size=192, num_layers=3, num_heads=3, mlp_dim=768
    )
    model = _bench.random_classifier(config)
    tokens = model.embed_tokens(jnp.zeros((32, 32, 3)))

    def encode(model, tokens):
        # Three layers: the loop between the first and the last runs once, and XLA counts a loop's body once.
        rows = jax.tree.map(lambda t: jnp.broadcast_to(t, (8, *t.shape)), tokens)
        return model.encode_tokens(rows, jnp.ones((8, 16), bool))

    counted = jax.jit(encode).lower(model, tokens).cost_analysis()["flops"] / 8
    prefix = 3 * 192 * 192 * 2 / 8  # the class token's projections, once for all rows
    assert counted == pytest.approx(_bench.forward_flops(config, 17) + prefix, rel=0.1)
    assert counted > _bench.forward_flops(config, 17)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tokens", "1"], "expected 2 to 17 tokens (the class token and 16 patches); got [1]"),
        (["--repeats", "0"], "expected at least 1 timed run; got 0"),
        (["--model", "missing"], "no model folder missing"),
    ],
)
def test_wrong_options_end_as_one_line(args, message, capsys):
    assert cli.main(["bench", *args]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
