"""A user whom nobody knows, without a home folder, as containers run programs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.checkout import ROOT

# What `pwd` does where the number of the user is in no list; a real one needs root to become.
UNKNOWN = "import pwd\ndef getpwuid(uid):\n    raise KeyError(uid)\npwd.getpwuid = getpwuid\n"


@pytest.mark.slow
def test_a_data_set_is_checked_and_nothing_is_left_in_the_folder(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sitecustomize.py").write_text(UNKNOWN)
    work = tmp_path / "work"
    for number in range(4):
        path = work / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), number * 60, np.uint8)).save(path)
    done = subprocess.run(
        [sys.executable, "-m", "lightnets.cli", "data", "check", "pictures"],
        cwd=work,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "code"), str(ROOT)]),
            "PYTHONIOENCODING": "ascii",
            # Root may write there, too.
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is wrong" in done.stdout
    assert [path.name for path in work.iterdir()] == ["pictures"]
