"""Several processes of one run: when one ends, all end, each with a line that says which and why."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from safetensors.numpy import save_file

from jaxmoxi.cli import relay
from jaxmoxi.cli.main import main
from jaxmoxi.cli.together import _described
from jaxmoxi.errors import is_lost
from jaxmoxi.models.networks import vit
from support.games import golden_tensor
from support.study import CLASSES, write_photos

COMMAND = "import sys; from jaxmoxi.cli.main import main; sys.exit(main(sys.argv[1:]))"
SLOWLY = "import time, jaxmoxi.study.run as run; one = run._one; run._one = lambda *a: (time.sleep(2), one(*a))[1]; "
LOST = (
    "E1127 12:25:10.048331   23893 coordination_service_agent.cc:289] Polled an error from coordination service.\n"
    "F1127 12:25:10.048352   23893 client.h:80] Terminating process because the JAX distributed service detected fatal "
    "errors. This most likely indicates that another task died.\n"
    "Additional GRPC error information from remote target\n"
    "*** Check failure stack trace: ***\n"
    "    @     0x7f8815020634  absl::lts_20260107::log_internal::LogMessage::SendToLog()\n"
)


def relayed(text):
    return "".join(relay.relayed(text.splitlines(keepends=True), "1"))


def test_a_page_of_cpp_becomes_a_line():
    assert relayed(LOST) == (
        "jaxmoxi: error: process 1: the first process of the run has ended, or cannot be reached; what is written "
        "stays: start all processes again to go on\n"
    )
    assert "process 0: another process of the run has ended" in "".join(relay.relayed([LOST], "0"))
    late = LOST.replace("information from", "RPC: /xla.coordination.CoordinationService/RegisterTask")
    assert "not all processes of the run have come in time" in relayed(late)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--coordinator", "host0:8476"], "--coordinator, --num-processes and --process-id need --distributed"),
        (["--distributed", "--process-id", "0"], "go together: give all three, or none"),
        (["--coordinator", "host0", "--num-processes", "2", "--process-id", "0"], "expected HOST:PORT"),
        (["--coordinator", "h:1", "--num-processes", "2", "--process-id", "2"], "expected a number from 0 to 1"),
        (["--coordinator", "h:1", "--num-processes", "2", "--process-id", "0", "--join-seconds", "0"], "at least 1"),
    ],
)
@pytest.mark.parametrize("command", [["study", "photos"], ["train"]])
def test_how_the_others_are_found_is_checked(capsys, tmp_path, command, words, said):
    distributed = ["--distributed"] if len(words) > 2 and "--distributed" not in words else []
    assert main([*command, "--out", str(tmp_path), *distributed, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_lost_connection_is_a_line():
    gone = jax.errors.JaxRuntimeError("FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer")
    assert _described(gone) == (
        2,
        "jaxmoxi: error: another process of the run has ended, or cannot be reached; what is written stays: start all "
        "processes again to go on",
    )
    assert not is_lost(jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed"))
    assert not is_lost(ValueError("Connection closed by peer"))


def test_everything_else_is_passed_on():
    other = "E1127 12:00:00.000000   1 cuda_dnn.cc:3] no cuDNN\nmore of it\n"
    warned = "W1127 12:00:00.000001   1 coordination_service.cc:388] aborted\n and why\n"
    assert relayed("Fatal Python error: Aborted\n" + warned + other) == "Fatal Python error: Aborted\n" + other
    assert relayed("") == ""
    assert (
        relayed("[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1\nmore\n")
        == "more\n"
    )


class Pair:
    """Two processes of `jaxmoxi study --distributed`, or of another command, on this machine."""

    def __init__(self, tmp_path, words, *, slowly=False, command=None):
        command = command or ["study", str(write_photos(tmp_path / "photos", 12))]
        address = f"127.0.0.1:{random.randrange(20_000, 60_000)}"
        root = Path(__file__).parents[2]
        env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
        self.errors = [(tmp_path / f"err{i}").open("w+") for i in range(2)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", (SLOWLY if slowly else "") + COMMAND, *command, *words[i], "--distributed", 
                 "--coordinator", address, "--num-processes", "2", "--process-id", str(i)],
                stderr=self.errors[i], stdout=subprocess.DEVNULL, env=env,
            )
            for i in range(2)
        ]  # fmt: skip

    def end(self, seconds=60):
        """The exit codes, and what each process printed on stderr."""
        codes = [process.wait(timeout=seconds) for process in self.processes]
        time.sleep(0.5)  # for the relays
        return codes, [Path(file.name).read_text() for file in self.errors]


@pytest.fixture
def words(tmp_path):
    model = tmp_path / "tiny-vit"
    model.mkdir()
    config = vit.VisionTransformerConfig(
        image_size=16, patch_size=4, hidden_size=16, num_layers=2, num_heads=2, mlp_dim=32, num_classes=4
    )
    shapes = vit.expected_tensors(config, "vit")
    save_file({n: golden_tensor("study", n, s, 0.7) for n, s in shapes.items()}, model / "model.safetensors")
    settings = {
        "model_type": "vit", "image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "id2label": dict(enumerate(CLASSES)),
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(settings))
    return [
        "--model", str(model), "--preprocessing", "half", "--out", str(tmp_path / "out"),
        "--methods", "random", "--metrics", "curves",
        "--regions", "grid:2x2", "--target", "prediction", "--only-correct", "False", "--shard-size", "1", "--quiet",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("refuses", [0, 1])
def test_a_process_that_refuses_its_settings_ends_both(tmp_path, words, refuses):
    changed = [words if i != refuses else [*words, "--steps", "-3"] for i in range(2)]
    codes, errors = Pair(tmp_path, changed).end()
    assert codes == [2, 2]
    assert errors[refuses].startswith("jaxmoxi: error: ")
    other = errors[1 - refuses]
    assert other.startswith(f"jaxmoxi: error: process {refuses} on ")
    assert other.count("\n") == errors[refuses].count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_ends_the_other(tmp_path, words, dies):
    pair = Pair(tmp_path, [words, words], slowly=True)
    until = time.monotonic() + 90
    while not list((tmp_path / "out").glob("shards/*")) and time.monotonic() < until:
        time.sleep(0.1)
    pair.processes[dies].send_signal(signal.SIGKILL)
    started = time.monotonic()
    codes, errors = pair.end()
    assert time.monotonic() - started < 60
    assert codes[dies] == -signal.SIGKILL
    assert codes[1 - dies] != 0
    said = "the first process of the run has ended" if dies == 0 else "process 1 on .* has not been heard of for 20 s"
    assert len(errors[1 - dies].splitlines()) == 1
    assert re.search(said, errors[1 - dies])


@pytest.mark.slow
def test_two_that_agree_end_in_peace(tmp_path, words):
    codes, errors = Pair(tmp_path, [words, words]).end(120)
    assert codes == [0, 0]
    assert errors == ["", ""]
    assert (tmp_path / "out" / "report.md").exists()


@pytest.mark.slow
def test_hosts_that_do_not_share_the_folder_end(tmp_path, words):
    apart = [[*words, "--out", str(tmp_path / f"out{i}")] for i in range(2)]
    codes, errors = Pair(tmp_path, apart).end(120)
    assert codes == [2, 2]
    assert all("out1 is not the same folder here as in the first process" in error for error in errors)
    assert [error.count("\n") for error in errors] == [1, 1]


TINY = ["--num-scenes", "64", "--epochs", "500", "--batch-size", "8", "--image-size", "32", "--num-groups", "9"]


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGTERM)])
def test_a_training_ends_with_its_processes(tmp_path, ends, number):
    words = [*TINY, "--black-box", "--one-device", "--quiet", "--out", str(tmp_path / "run")]
    pair = Pair(tmp_path, [words, words], command=["train"])
    history, until = tmp_path / "run" / "history.jsonl", time.monotonic() + 200
    while not history.exists() and time.monotonic() < until:
        time.sleep(0.1)
    pair.processes[ends].send_signal(number)
    started = time.monotonic()
    codes, errors = pair.end()
    assert time.monotonic() - started < 60
    if number == signal.SIGTERM:
        assert codes == [0, 0]
        assert re.fullmatch(r"jaxmoxi: stopped after step \d+, which is saved in .*; the same command .*\n", errors[0])
    else:
        assert codes[ends] == -signal.SIGKILL
        assert codes[1 - ends] != 0
        assert re.search(r"(process 1 on .* has not been heard of|process of the run has ended)", errors[1 - ends])
