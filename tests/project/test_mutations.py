"""The list of mutations fits the code, and the tests they name go red (all: run_mutations.py)."""

import subprocess
import sys

import pytest

from tests import mutations, run_mutations


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_fits_the_code(mutation):
    assert (run_mutations.ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.new != mutation.old
    file, _, name = mutation.test.partition("::")
    (path,) = (run_mutations.ROOT / "tests").rglob(file)
    assert f"def {name.partition('[')[0]}(" in path.read_text()


# In a process of its own: one in which TensorFlow has run cannot fork, and the code as it is must
# not be imported yet.
TRY = """
import pathlib, sys
from tests import mutations, run_mutations

folder = pathlib.Path(sys.argv[1])
run_mutations.copy_project(folder)
for mutation in mutations.MUTATIONS:
    if mutation.name in sys.argv[2:]:
        unchanged, _ = run_mutations.run_test(folder, mutation.test)
        print(unchanged, run_mutations.is_caught(folder, mutation))
"""


@pytest.mark.nightly
def test_three_mutations_are_caught_and_the_unchanged_code_is_not(tmp_path):
    names = ("inverse channel shuffle", "pickles may run code", "grouped entry into stage 2")
    command = [sys.executable, "-c", TRY, tmp_path, *names]
    shown = subprocess.check_output(command, cwd=run_mutations.ROOT, text=True)
    assert shown.splitlines() == ["0 True"] * 3
