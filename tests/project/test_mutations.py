"""The list of mutations fits the code, and the tests they name go red (all: run_mutations.py)."""

import pytest

from tests import mutations, run_mutations


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_fits_the_code(mutation):
    assert (run_mutations.ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.new != mutation.old
    file, _, name = mutation.test.partition("::")
    (path,) = (run_mutations.ROOT / "tests").rglob(file)
    assert f"def {name.partition('[')[0]}(" in path.read_text()


@pytest.mark.nightly
def test_three_mutations_are_caught_and_the_unchanged_code_is_not(tmp_path):
    names = ("inverse channel shuffle", "pickles may run code", "grouped entry into stage 2")
    run_mutations.copy_project(tmp_path)
    for mutation in mutations.MUTATIONS:
        if mutation.name in names:
            assert run_mutations.run_test(tmp_path, mutation.test)[0] == 0
            assert run_mutations.is_caught(tmp_path, mutation), mutation.name
