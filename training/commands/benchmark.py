"""`lightnets benchmark`: the numbers of this machine, beside those of other libraries."""

from __future__ import annotations

import argparse
import math
import os
import pathlib
import shutil
import subprocess
import sys

import training
from training.errors import UsageError, UserError
from training.words import nearest

HELP = "measure speed on this machine"

# What to measure -> its scripts in `benchmarks/`, in the order of their run.
SCRIPTS = {
    "train": (
        "train_step",
        "train_step_profile",
        "mixed_precision",
        "memory",
        "scaling",
        "grouped_forms",
        "train_step_torch",
    ),
    "infer": ("inference", "predict_files"),
    "data": ("data_pipeline", "data_pipeline_profile", "listed_files"),
    "serve": ("serving", "serving_profile", "litert"),
    "start": ("startup",),
    "check": ("check",),
}
_NEEDS_TORCH = {"train_step_torch"}


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
        default=os.environ.get("TORCH_PYTHON"),
        help="interpreter that has torch and torchvision, to compare with (default: $TORCH_PYTHON)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the scripts, each in a process of its own; one that fails does not stop the rest."""
    unknown = [what for what in args.what if what not in SCRIPTS]
    if unknown:
        raise UsageError(
            f"Unknown benchmark {unknown[0]!r}.{nearest(unknown[0], SCRIPTS)} "
            f"Choose among {', '.join(SCRIPTS)}."
        )
    if args.seconds is not None and not 0 < args.seconds < math.inf:
        raise UsageError(f"--seconds (={args.seconds:g}) must be a number above 0.")
    if args.torch_python and shutil.which(args.torch_python) is None:
        raise UsageError(
            f"--torch-python (={args.torch_python}) is no program. Give the python of an "
            "environment with torch and torchvision, or leave it out."
        )
    folder = scripts_folder()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write to {args.out}: {error.strerror}. Name another --out."
        ) from None
    failed = []
    for what in args.what or [name for name in SCRIPTS if name != "check"]:
        for script in SCRIPTS[what]:
            if script in _NEEDS_TORCH and not args.torch_python:
                print(f"{script}: left out, it needs --torch-python")
                continue
            print(f"== {script}", flush=True)
            if subprocess.run(command(folder / f"{script}.py", args), check=False).returncode:
                failed.append(script)
    if failed:
        raise UserError(f"Failed: {', '.join(failed)}. Their messages stand above.")
    return 0


def command(script: pathlib.Path, args: argparse.Namespace) -> list[str]:
    """The command line of one script."""
    words = [sys.executable, str(script)]
    if script.stem == "check":
        return words
    words += ["--out", str(args.out)]
    takes = script.read_text(encoding="utf-8")
    takes_seconds = '"--seconds"' in takes or "common.network_main(" in takes
    if args.seconds is not None and takes_seconds:
        words += ["--seconds", str(args.seconds)]
    if args.torch_python and '"--torch-python"' in takes:
        words += ["--torch-python", args.torch_python]
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
