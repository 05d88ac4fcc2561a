"""Talks to `torch_worker.py`, which runs in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

HELP = "Python of an environment with torch and torchvision (default: $TORCH_PYTHON)"


def python(path: str | None = None) -> str | None:
    """The interpreter to use, if there is one."""
    path = path or os.environ.get("TORCH_PYTHON")
    return path if path and pathlib.Path(path).exists() else None


@contextlib.contextmanager
def worker(interpreter: str, **job) -> Iterator[tuple[Callable[[], float], str]]:
    """Yields a function that runs one turn and returns its seconds, and the versions."""
    script = pathlib.Path(__file__).with_name("torch_worker.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with subprocess.Popen(
        [interpreter, str(script), json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the script: the worker ends with its input
    ) as process:
        versions = process.stdout.readline().strip()
        if not versions:
            raise RuntimeError(f"{interpreter} {script} failed to start: see its message above.")

        def turn() -> float:
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{interpreter} {script} ended: see its message above.")
            return float(line)

        try:
            yield turn, versions
        finally:
            process.stdin.close()
