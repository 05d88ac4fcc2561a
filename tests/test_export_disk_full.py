"""A disk that fills up during an export costs one line and no version."""

import pathlib
import subprocess
import sys

CODE = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_export import small_net
import keras_lightnets
from keras_lightnets.serving.errors import ExportError
model = small_net()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # writing more fails, as on a full disk
try:
    keras_lightnets.export_saved_model(model, sys.argv[1])
except ExportError as error:
    print("refused:", error)
"""


def test_a_full_disk_publishes_nothing(tmp_path):
    tests = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "models", tests],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith("refused: Cannot write the export to"), result.stderr[-2000:]
    assert result.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())
