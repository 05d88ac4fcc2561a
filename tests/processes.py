"""Runs functions in fresh processes in which TensorFlow is imported but not yet started.

Devices can be set once in the life of a process, and a killed process is gone: tests of both
fork from a server that has paid for the imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.toy"])


class Child:
    """A function running in a process of its own."""

    def __init__(self, function: Callable, *args: Any, **kwargs: Any):
        self._results, theirs = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_run, args=(theirs, function, args, kwargs))
        self.process.start()
        theirs.close()

    def result(self, timeout: float = 120) -> Any:
        """Returns what the function returned; raises what it raised."""
        try:
            if not self._results.poll(timeout):
                raise TimeoutError(f"no result within {timeout} s")
            kind, value = self._results.recv()
        except EOFError:
            self.process.join()
            raise ChildProcessError(f"exit code {self.process.exitcode}") from None
        finally:
            self.stop()
        if kind == "error":
            raise value
        return value

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def stop(self, timeout: float = 10) -> None:
        """Waits for the process, and kills it if it does not end."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.kill()


def call(function: Callable, *args: Any, timeout: float = 120, **kwargs: Any) -> Any:
    """Runs a function of a module in a fresh process and returns its result."""
    return Child(function, *args, **kwargs).result(timeout)


def _run(results: Connection, function: Callable, args: tuple, kwargs: dict) -> None:
    try:
        results.send(("result", function(*args, **kwargs)))
    except BaseException as error:
        traceback.print_exc(file=sys.stderr)
        try:
            results.send(("error", error))
        except Exception:  # not every error can be pickled
            results.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without TensorFlow's shutdown, which waits for other workers.
        os._exit(0)


def free_ports(count: int) -> list[int]:
    """Returns ports of 127.0.0.1 that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
