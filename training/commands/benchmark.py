"""`lightnets benchmark`: the numbers of this machine, beside those of other libraries."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import training
from training.errors import UsageError, UserError
from training.interrupts import Interrupted
from training.words import nearest

HELP = "measure speed on this machine"

_OUT = ("--out",)
_TIMED = ("--out", "--seconds")
_TORCH = ("--out", "--seconds", "--torch-python")

# What to measure -> its scripts in `benchmarks/`, in the order of their run, each with those of
# this command's options that it takes.
SCRIPTS = {
    "train": {
        "train_step": _TIMED,
        "train_step_profile": _OUT,
        "mixed_precision": _TIMED,
        "memory": _TIMED,
        "scaling": _TIMED,
        "grouped_forms": _TIMED,
        "train_step_torch": _TORCH,
    },
    "infer": {"inference": _TIMED, "predict_files": _TIMED},
    "data": {"data_pipeline": _TORCH, "data_pipeline_profile": _OUT, "listed_files": _OUT},
    "serve": {"serving": _TIMED, "serving_profile": _OUT, "runtimes": _TIMED, "litert": _TIMED},
    "start": {"startup": _OUT},
    "check": {"check": ()},
}
_NEEDS_TORCH = {"train_step_torch"}
_SECONDS_TO_END = 10  # that a script has after Ctrl-C, to finish the file that it writes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help=f"{', '.join(SCRIPTS)} (default: all but check)",
    )
    parser.add_argument("--seconds", type=float, help="per comparison (default: each script's own)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="DIR",
        default=pathlib.Path("benchmark_results"),
        help="where CSV files and pictures go (default: %(default)s)",
    )
    parser.add_argument(
        "--torch-python",
        metavar="PYTHON",
        default=os.environ.get("TORCH_PYTHON") or None,
        help="interpreter that has torch and torchvision, to compare with (default: $TORCH_PYTHON)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the scripts, each in a process of its own; one that fails does not stop the rest."""
    scripts = chosen(args.what)
    if args.seconds is not None and not 0 < args.seconds < math.inf:
        raise UsageError(f"--seconds (={args.seconds:g}) must be a number above 0.")
    folder = scripts_folder()
    if any("--torch-python" in takes for takes in scripts.values()):
        _check_torch(args.torch_python)
    if any("--out" in takes for takes in scripts.values()):
        _check_writable(args.out)
    failed = []
    for number, (script, takes) in enumerate(scripts.items(), 1):
        head = f"== {script} ({number} of {len(scripts)})"
        if script in _NEEDS_TORCH and not args.torch_python:
            print(f"{head}: left out, it needs --torch-python", flush=True)
            continue
        print(head, flush=True)
        try:
            status = _wait(command(folder / f"{script}.py", takes, args))
        except KeyboardInterrupt:
            measured = any(args.out.glob("*.csv"))
            kept = f" What had been measured before is in {args.out}." if measured else ""
            raise Interrupted(f"Interrupted in {script}.{kept}", signal.SIGINT) from None
        if status:
            failed.append(script)
    if failed:
        raise UserError(f"Failed: {', '.join(failed)}. Their messages stand above.")
    return 0


def chosen(topics: list[str]) -> dict[str, tuple[str, ...]]:
    """The scripts of some topics, of all but the check if none is named, and what they take."""
    for topic in topics:
        if topic not in SCRIPTS:
            raise UsageError(
                f"Unknown benchmark {topic!r}.{nearest(topic, SCRIPTS)} "
                f"Choose among {', '.join(SCRIPTS)}."
            )
    found = {}
    for topic in topics or [name for name in SCRIPTS if name != "check"]:
        found |= SCRIPTS[topic]
    return found


def command(script: pathlib.Path, takes: tuple[str, ...], args: argparse.Namespace) -> list[str]:
    """The command line of one script, with those options that it takes and that were given."""
    given = {"--out": args.out, "--seconds": args.seconds, "--torch-python": args.torch_python}
    words = [sys.executable, str(script)]
    for option in takes:
        if given[option] is not None:
            words += [option, str(given[option])]
    return words


def scripts_folder() -> pathlib.Path:
    """`benchmarks/` of the checkout that this package runs from, or of the current folder.

    Raises:
        UserError: There is none: the scripts are not part of the installed package.
    """
    for parent in (pathlib.Path(training.__file__).parent.parent, pathlib.Path.cwd()):
        if (parent / "benchmarks" / "common.py").is_file():
            return parent / "benchmarks"
    raise UserError(
        "There is no folder benchmarks/ here: the scripts come with the source, not with the "
        "installed package. Run this in a checkout."
    )


def _check_torch(interpreter: str | None) -> None:
    if interpreter is None:
        return
    if shutil.which(interpreter) is None:
        raise UsageError(
            f"--torch-python (={interpreter}) is no program. Give the python of an "
            "environment with torch and torchvision, or leave it out."
        )
    tried = subprocess.run(
        [interpreter, "-c", "import torch, torchvision"],
        check=False,
        capture_output=True,
        text=True,
        # The packages of this interpreter are not for that one.
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(
            f"--torch-python (={interpreter}) cannot import torch and torchvision ({said}). "
            "Install them there, or leave it out."
        )


def _check_writable(folder: pathlib.Path) -> None:
    """Makes the folder and a file in it: an hour later would be too late to find out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder}: {error.strerror}. Name another --out."
        ) from None


def _wait(words: list[str]) -> int:
    """Runs a script and returns its exit code; Ctrl-C, which it gets too, lets it end first."""
    with subprocess.Popen(words) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            process.kill()
            raise
