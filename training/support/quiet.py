"""Starts TensorFlow without its chatter, and with its fast kernels on every device.

TensorFlow 2.21 prints notices on oneDNN and CUDA while it is imported, from C++ and before its
log level (`TF_CPP_MIN_LOG_LEVEL`) takes effect. Only a closed standard error stops them.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import logging
import os
import sys
import tempfile
import types
from collections.abc import Iterator

from lightnets.support import interrupts


def quieten(*, verbose: bool = False) -> None:
    """Chooses TensorFlow's kernels and silences it, before it is imported; its errors still raise.

    Args:
        verbose: Let it print all it has to say. It computes the same.
    """
    # TensorFlow turns oneDNN on by itself only where it knows the CPU (AVX-512 on Intel). On
    # others its own kernels are about half as fast; see docs/performance.md.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Else batch norms of 16 bits transpose their maps on GPUs, forward and backward.
    os.environ.setdefault("TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT", "1")
    if verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules and not any(
        isinstance(finder, _QuietFinder) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds `tensorflow` as usual, but has it run with standard error put aside."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("tensorflow")
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_in_silence(module: types.ModuleType) -> None:
                with standard_error_aside():
                    load(module)

            spec.loader.exec_module = load_in_silence
        return spec


@contextlib.contextmanager
def standard_error_aside() -> Iterator[None]:
    """Sends file descriptor 2 to a file, whose contents are shown if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            file.seek(0)
            if not interrupts.pressed.is_set():
                sys.stderr.write(file.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
