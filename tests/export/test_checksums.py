"""`SHA256SUMS` and `lightnets verify`: every altered, missing and added file is named."""

import shutil
import subprocess
import sys

import pytest

from keras_lightnets.export import checksums
from lightnets.cli import main
from tests.bundles import FILES, publish


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def replace_by_link(path):
    path.unlink()
    path.symlink_to("nowhere")


SUMS = checksums.CHECKSUMS


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda v: flip(v / FILES[0], 0), [f"{FILES[0]}: changed"]),
        (lambda v: flip(v / FILES[1], 1000), [f"{FILES[1]}: changed"]),
        (lambda v: (v / FILES[2]).unlink(), [f"{FILES[2]}: missing"]),
        (lambda v: shutil.rmtree(v / "variables"), [f"{FILES[1]}: missing"]),
        (lambda v: replace_by_link(v / FILES[0]), [f"{FILES[0]}: changed"]),
        (lambda v: (v / "variables" / "x").touch(), [f"variables/x: not in {SUMS}"]),
        (lambda v: (v / "variables" / SUMS).touch(), [f"variables/{SUMS}: not in {SUMS}"]),
        (lambda v: (v / SUMS).unlink(), [f"{SUMS}: missing"]),
        (
            lambda v: (v / SUMS).write_text("x\n"),
            [f"{SUMS}: line 1 is not what sha256sum writes", *(f"{f}: not in" for f in FILES)],
        ),
    ],
)
def test_what_is_not_as_it_was_exported_is_named(tmp_path, capsys, damage, named):
    # Mutations: only files of the list are looked at; only those that are there; sizes compared.
    damaged, whole = publish(tmp_path / "digits", 1), publish(tmp_path / "digits" / "formats", 2)
    assert checksums.problems(damaged) == []
    damage(damaged)
    found = checksums.problems(damaged)
    assert len(found) == len(named)
    assert all(any(line.startswith(start) for line in found) for start in named)
    lines = [f"FAILED  {damaged}/{line}" for line in found]
    for folder, more in ((tmp_path, 1), (tmp_path / "digits", 1), (damaged, 0)):
        assert main(["verify", str(folder)]) == 1
        out, err = capsys.readouterr()
        assert out.splitlines() == lines + [f"ok      {whole}"] * more
        assert err == f"lightnets: 1 of {1 + more} versions are not as they were exported.\n"


def test_sha256sum_reads_the_file_and_verify_needs_no_tensorflow(tmp_path):
    version = publish(tmp_path / "digits", 1)
    check = ["sha256sum", "--strict", "-c", SUMS]
    assert subprocess.run(check, cwd=version, stdout=subprocess.DEVNULL).returncode == 0
    code = (
        "import sys\nfrom lightnets.cli import main\nassert main(['verify', sys.argv[1]]) == 0\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    following = f"ok      {version}\nNext: lightnets serve {tmp_path}\n"
    assert (done.stdout, done.stderr) == (following, "")
    flip(version / FILES[1], 7)
    done = subprocess.run(check, cwd=version, capture_output=True, text=True)
    assert f"{FILES[1]}: FAILED" in done.stdout


def test_one_bit_of_an_export_is_found(small_export, tmp_path):
    """The weights are constants of the graph: a bit in the middle of it is one of a kernel."""
    version = shutil.copytree(small_export[1], tmp_path / "1")
    assert checksums.problems(version) == []
    flip(version / "saved_model.pb", 4 * (version / "saved_model.pb").stat().st_size)
    assert checksums.problems(version) == ["saved_model.pb: changed"]


@pytest.mark.parametrize(("folder", "words"), [("none", "There is no"), (".", "holds no exported")])
def test_no_version_is_one_line(tmp_path, capsys, folder, words):
    assert main(["verify", str(tmp_path / folder)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
