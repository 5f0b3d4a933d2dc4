"""`jaxmoxi train` is asked to end: it saves, says how to go on, and the same command does."""

import json
import signal
import warnings

import pytest

from jaxmoxi import p2p
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli import train as _train
from jaxmoxi.cli.main import main
from jaxmoxi.cli.signals import StoppedError, Stopping
from jaxmoxi.errors import InputError
from jaxmoxi.p2p.training.lock import only_one

TINY = ["--num-scenes", "20", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--num-groups", "9"]
ALONE = ["--black-box", "--one-device", "--quiet"]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_saves_and_goes_on(tmp_path, capfd, monkeypatch, number, code):
    before = signal.getsignal(number)
    describe = _train._print_epoch

    def at_the_first_epoch(line):
        if line["epoch"] == 1 and not (tmp_path / "signalled").exists():
            (tmp_path / "signalled").touch()
            signal.raise_signal(number)
        describe(line)

    monkeypatch.setattr(_train, "_print_epoch", at_the_first_epoch)
    words = ["train", "--out", str(tmp_path / "run"), *TINY, "--black-box", "--one-device"]
    assert main(words) == code
    errors = capfd.readouterr().err
    assert "jaxmoxi: stopping after this step, and saving; a second signal stops at once" in errors
    assert f"jaxmoxi: stopped after step 1, which is saved in {tmp_path / 'run'}; the same command goes on" in errors
    assert signal.getsignal(number) is before
    assert not (tmp_path / "run" / "evaluation.json").exists()
    assert main([*words, "--quiet"]) == 0
    assert capfd.readouterr().err == ""
    assert [json.loads(line)["epoch"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
    assert (tmp_path / "run" / "evaluation.json").exists()


def test_outside_the_training_it_ends_at_once(tmp_path, capsys, monkeypatch):
    for name, said in (("_prepare", "before the training"), ("_evaluate", "after step 2, which is saved")):
        with monkeypatch.context() as patch:
            patch.setattr(_train, name, lambda *args, **kwargs: signal.raise_signal(signal.SIGTERM))
            assert main(["train", "--out", str(tmp_path / "run"), *TINY, *ALONE]) == 0
        assert f"jaxmoxi: stopped {said}" in capsys.readouterr().err


def test_a_second_signal_does_not_wait():
    with Stopping() as stopping:
        assert not stopping.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stopping.requested()
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(StoppedError):
            stopping.work_is_saved()
    assert stopping.code == 0  # by the first one


def test_what_the_library_warns_of_is_a_line(tmp_path, capsys, monkeypatch):
    def fit(*args, **kwargs):
        warnings.warn("the checkpoint of step 6 is damaged:\n the run goes on", stacklevel=1)
        raise InputError("and so on")

    monkeypatch.setattr(p2p, "fit", fit)
    assert main(["train", "--out", str(tmp_path / "run"), *TINY, *ALONE]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "jaxmoxi: warning: the checkpoint of step 6 is damaged: the run goes on"
    )


def test_a_second_trainer_is_refused_in_one_line(tmp_path, capsys):
    with only_one(tmp_path / "run"):
        assert main(["train", "--out", str(tmp_path / "run"), *TINY, *ALONE]) == 2
    assert capsys.readouterr().err.startswith(f"jaxmoxi: error: another process trains in {tmp_path / 'run'} (process")
