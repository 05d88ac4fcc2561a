"""One job at a time in a run directory, also where several machines share the storage.

The job that writes (of several workers the first) holds the operating system's lock on `lock.json`,
which ends with its process, however that ends. The file says whose it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import IO

from lightnets.support import console
from lightnets.support.errors import UserError

NAME = "lock.json"

_held: set[pathlib.Path] = set()  # by this process


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Holds the run directory `folder`, made if it is missing; may be nested.

    At the end a folder that nothing was written to is removed: it would stand in the way of the
    next try.

    Raises:
        UserError: Another live job holds it.
    """
    path = folder.absolute() / NAME
    if path in _held:
        yield
        return
    with _locked(path) as file:
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        file.flush()
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def check(folder: pathlib.Path) -> None:
    """Raises UserError if a live job holds the run directory `folder`."""
    path = folder.absolute() / NAME
    if path not in _held and path.exists():
        _locked(path).close()


def _locked(path: pathlib.Path) -> IO[str]:
    """Returns the open file, which is locked until it is closed."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(
                f"{path.parent} is in use by {_owner(path)}. Wait for its end or stop it, or name "
                "another folder with --out."
            ) from None
        except OSError as error:
            console.line(
                f"{path.parent} cannot be locked ({error.strerror}): start no second job in it."
            )
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its owner has ended, and removed it, since it was opened


def _owner(path: pathlib.Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or ended
        return "another process"
