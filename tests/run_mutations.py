"""Applies each mutation to a copy of the project and checks that its test goes red.

python -m tests.run_mutations              all of them, some minutes
python -m tests.run_mutations shuffle      those with "shuffle" in their name
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.mutations import MUTATIONS, Mutation

ROOT = pathlib.Path(__file__).resolve().parents[1]
COPIED = ("keras_lightnets", "training", "tests", "pyproject.toml", "setup.cfg")
TESTS_FAILED = 1  # pytest's exit code; 0: passed, others: the test could not run


def copy_project(folder: pathlib.Path) -> None:
    """Copies what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    # The name under which it is installed; the environment's own is another checkout.
    (folder / "lightnets").symlink_to("training")


def run_test(folder: pathlib.Path, test: str) -> subprocess.CompletedProcess:
    """Runs one test of the copy; `test` names its file without the folder."""
    file, _, name = test.partition("::")
    (path,) = (folder / "tests").rglob(file)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "", f"{path}::{name}"]  # slow or not
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def is_caught(folder: pathlib.Path, mutation: Mutation) -> bool:
    """Applies `mutation` to the copy in `folder`, runs its test, and takes it back."""
    path = folder / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} must hold the old text once")
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        done = run_test(folder, mutation.test)
    finally:
        path.write_text(text)
    if done.returncode not in (0, TESTS_FAILED):
        raise RuntimeError(f"{mutation.name}: the test did not run\n{done.stdout}{done.stderr}")
    return done.returncode == TESTS_FAILED


def main(pattern: str = "") -> int:
    chosen = [mutation for mutation in MUTATIONS if pattern in mutation.name]
    survivors = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        copy_project(folder)
        for mutation in chosen:
            caught = is_caught(folder, mutation)
            print(f"{'caught  ' if caught else 'SURVIVED'}  {mutation.name}", flush=True)
            if not caught:
                survivors.append(mutation.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
