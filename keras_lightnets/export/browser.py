"""A browser without a window."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: containers, and the user root, have none. It sees pages and pictures of the caller.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def find() -> str | None:
    """The program of a Chromium on `PATH`."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def opened(program: str, url: str, *flags: str) -> Iterator[subprocess.Popen]:
    """Shows a page until the block ends, in a profile of its own.

    The browser ends with this process, however that ends: it reads commands from a pipe, of which
    there are none, and stops when the pipe is closed.
    """
    pipes = 'exec "$0" "$@" 3<&0 4>/dev/null'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = (*FLAGS, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}")
        with subprocess.Popen(
            ["sh", "-c", pipes, program, *flags, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.communicate()  # closes the pipe
