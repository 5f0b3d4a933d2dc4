"""The TPU compiler takes what searches compile: `pip install 'jax[tpu]'`, then `pytest -m slow tests/test_aot.py`."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import _aot_scale  # noqa: E402
import _hlo  # noqa: E402

PROGRAM = """HloModule jit_f

%body (x: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[8]{0} fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"100"}
  %w = (s32[]) while(%t), condition=%inner_cond, body=%inner
}

%inner (x: s32[]) -> s32[] {
  ROOT %b = f32[8]{0} fusion(%p), backend_config={"estimated_cycles":"7"}
}

%inner_cond (x: s32[]) -> pred[] {
  %bound = s32[]{:T(128)} constant(10)
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%cond (x: (s32[], f32[8])) -> pred[] {
  ROOT %lt.1 = pred[] compare(%i, %goal), direction=LT
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %c = f32[8]{0} fusion(%p), backend_config={"estimated_cycles":"1000"}
  %g = f32[32]{0} all-gather(%c), dimensions={0}
  ROOT %w.1 = (s32[]) while(%t), condition=%cond, body=%body
}
"""


def test_a_program_costs_its_operations_times_the_trips_of_their_loops():
    cost = _hlo.cost(PROGRAM)
    assert cost.total() == 1000 + 100 + 10 * 7  # a loop that the program ends runs once, unless one says otherwise
    assert cost.total((5,)) == 1000 + 5 * (100 + 10 * 7)
    assert _hlo.collectives(PROGRAM) == {"all-gather": 1}


def test_the_table_of_many_images_adds_up_the_stages():
    rows = [
        {"chip": "v5e", "program": "insertion, DeiT-Tiny, players 1 to 24, 24 visible", "modelled seconds": 0.24},
        {"chip": "v5e", "program": "insertion, DeiT-Tiny, players 25 to 40, 48 visible", "modelled seconds": 0.16},
        {"chip": "v5e", "error": "of another program"},
    ]
    found = _aot_scale.seconds_per_image(rows[:2])
    assert found["full insertion order"] == pytest.approx(0.4)
    assert found["group to the flip (32 players)"] == pytest.approx(0.24 + 0.08)
    assert "| v5e | full insertion order | 0.4 | 0.111 h | 5.56 h | 111 h |" in _aot_scale.table(rows)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="the TPU compiler is installed")
def test_without_the_compiler_it_says_what_to_install():
    done = subprocess.run([sys.executable, str(BENCHMARKS / "aot.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'jax[tpu]'" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'jax[tpu]'")
def test_the_main_programs_compile_for_a_v5e(tmp_path):
    out = tmp_path / "aot.json"
    entries = ("forward", "insertion", "sharded")
    command = [sys.executable, str(BENCHMARKS / "aot.py"), "--chips", "v5e", "--entries", *entries, "--first"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    forward, insertion, sharded = json.loads(out.read_text())["rows"]
    for row in (forward, insertion, sharded):
        assert row["fits"]
        assert row["kernels"] >= 2  # attention in the first layer and in the loop over the others
        assert row["share of peak"] > 0.1
    assert forward["collectives"] == insertion["collectives"] == {}
    assert set(sharded["collectives"]) == {"all-gather"}  # of the values, behind the forward
