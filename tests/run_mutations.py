"""Applies each mutation to a copy of the project and checks that its test goes red.

python -m tests.run_mutations              all of them: an hour on two cores
python -m tests.run_mutations shuffle      those with "shuffle" in their name
"""

from __future__ import annotations

import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from tests.mutations import MUTATIONS, Mutation

ROOT = pathlib.Path(__file__).resolve().parents[1]
# pytest's exit code, or the end of a process that wrote where it must not; 0: passed, others: the
# test could not run.
TESTS_FAILED = (1, -signal.SIGSEGV)


def copy_project(folder: pathlib.Path) -> None:
    """Copies what belongs to the project."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():  # still
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    # The name under which it is installed; the environment's own is another checkout.
    (folder / "lightnets").symlink_to("training")


def run_test(folder: pathlib.Path, test: str) -> tuple[int, str]:
    """Runs one test of the copy; `test` names its file without the folder.

    In a fork of this process, which has paid for the imports that take seconds.

    Returns:
        pytest's exit code, and what it printed.
    """
    file, _, name = test.partition("::")
    (path,) = (folder / "tests").rglob(file)
    with tempfile.TemporaryFile("w+") as output:
        if not (child := os.fork()):
            os._exit(_run_forked(folder, f"{path}::{name}", output.fileno()))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read()


def _run_forked(folder: pathlib.Path, test: str, output: int) -> int:
    import pytest

    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:0] = [str(folder)]
    sys.dont_write_bytecode = True
    for module in [module for module in sys.modules if module.partition(".")[0] == "tests"]:
        del sys.modules[module]
    try:  # slow or not
        return pytest.main(["-q", "-p", "no:cacheprovider", "-m", "", test])
    finally:
        sys.stdout.flush()


def is_caught(folder: pathlib.Path, mutation: Mutation) -> bool:
    """Applies `mutation` to the copy in `folder`, runs its test, and takes it back.

    Raises:
        RuntimeError: The test did not run.
        ValueError: The file does not hold the old text once.
    """
    path = folder / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} must hold the old text once")
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        code, shown = run_test(folder, mutation.test)
    finally:
        path.write_text(text)
    if code not in (0, *TESTS_FAILED):
        raise RuntimeError(f"the test did not run\n{shown}")
    return code in TESTS_FAILED


def main(pattern: str = "") -> int:
    chosen = [mutation for mutation in MUTATIONS if pattern in mutation.name]
    caught = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        copy_project(folder)
        for package in ("tensorflow", "keras", "sklearn.linear_model"):
            importlib.import_module(package)
        for mutation in chosen:
            try:
                verdict = "caught" if is_caught(folder, mutation) else "SURVIVED"
            except (OSError, RuntimeError, ValueError) as error:  # the others still count
                verdict = f"BROKEN ({error})"
            print(f"{verdict:8}  {mutation.name}", flush=True)
            caught += verdict == "caught"
    print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
