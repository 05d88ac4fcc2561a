import os
import subprocess
import sys

import pytest

IMPORT = "import tensorflow as tf; tf.constant(1); print(tf.__spec__.name)"


def run(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **kwargs)


def test_tensorflow_starts_in_silence_and_works():
    # Mutation: leaving out the finder; TensorFlow then prints its notices on oneDNN and CUDA.
    result = run(f"from lightnets.support import quiet; quiet.quieten(); {IMPORT}")
    assert (result.stdout, result.stderr) == ("tensorflow\n", "")


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("chosen", [None, "0"])
def test_the_command_turns_onednn_on_unless_told(chosen, verbose):
    # Mutation: leaving the variable to TensorFlow, which knows few CPUs; overwriting a choice.
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": chosen} if chosen else {}
    code = (
        f"from lightnets.support import quiet; quiet.quieten(verbose={verbose}); import tensorflow;"
        "from tensorflow.python.util import _pywrap_util_port as port; print(port.IsMklEnabled())"
    )
    assert run(code, env=environment).stdout == f"{chosen is None}\n"


@pytest.mark.parametrize("chosen", [None, "0"])
def test_the_command_asks_for_cudnns_batch_norm_unless_told(chosen):
    name = "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"
    environment = {k: v for k, v in os.environ.items() if k != name}
    environment |= {name: chosen} if chosen else {}
    code = (
        "import os; from lightnets.support import quiet; quiet.quieten();"
        f"print(os.environ['{name}'])"
    )
    assert run(code, env=environment).stdout == f"{chosen or 1}\n"


def test_what_comes_after_the_import_reaches_standard_error():
    result = run(
        "from lightnets.support import quiet; quiet.quieten(); import tensorflow, os, sys;"
        "os.write(2, b'low '); print('high', file=sys.stderr)"
    )
    assert result.stderr == "low high\n"


def test_a_failed_import_shows_what_was_put_aside(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'why'); 1 / 0")
    code = (
        f"import sys; from lightnets.support import quiet; sys.path.insert(0, {str(tmp_path)!r});"
        "quiet.quieten(); import tensorflow"
    )
    result = run(code)
    assert result.returncode == 1
    assert result.stderr.startswith("why")
    assert "ZeroDivisionError" in result.stderr
