"""The command `jaxmoxi`: a thin shell over the library.

A subcommand is a dataclass in a file of its own. Its fields are the options; its `run` does the work and returns the
exit code; `_COMMANDS` lists it. What a user can get wrong ends as one line on stderr and exit code 2: these are
`CommandError`, and `InputError` of the library. Any other error is a mistake in this package and keeps its traceback.
"""

from __future__ import annotations

import sys
from typing import Any

import tyro

from jaxmoxi.cli.bench import Bench
from jaxmoxi.cli.explain import Explain
from jaxmoxi.cli.interactions import ShowInteractions
from jaxmoxi.cli.predict import Predict
from jaxmoxi.cli.shared import CommandError, plain_warnings
from jaxmoxi.cli.study import Study
from jaxmoxi.cli.train import Train
from jaxmoxi.errors import InputError

_COMMANDS: dict[str, Any] = {
    "explain": Explain,
    "interactions": ShowInteractions,
    "train": Train,
    "predict": Predict,
    "study": Study,
    "bench": Bench,
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the process's) and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        import jaxmoxi

        print(f"jaxmoxi {jaxmoxi.__version__}")
        return 0
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            _COMMANDS,
            prog="jaxmoxi",
            description="Which regions of an image, together, make a classifier believe what it believes? "
            "`jaxmoxi --version` prints the version.",
            args=argv,
        )
    except SystemExit as stop:  # tyro has printed the help or what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    try:
        with plain_warnings():
            return command.run()
    except (CommandError, InputError) as error:
        print(f"jaxmoxi: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxmoxi: interrupted", file=sys.stderr)
        return 130
