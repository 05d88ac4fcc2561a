"""One job at a time in a run directory, also where several machines share the storage.

The job that writes (of several workers the first) holds `lock.json`. It names the process, and
is touched every few seconds. On the same machine the process table says whether its owner lives;
for any other machine, or container, only a lock that is no longer touched is dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psutil

from lightnets.support import console
from lightnets.support.errors import UserError

NAME = "lock.json"
# Seconds between signs of life, and without one until an owner elsewhere counts as dead.
BEAT, PATIENCE = 10.0, 60.0

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
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {**_myself(), "token": uuid.uuid4().hex}
    while not _create(path, owner):
        _give_up_if_alive(path)
    _held.add(path)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, owner, done), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        _held.discard(path)
        if _read(path) == owner:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def check(folder: pathlib.Path) -> None:
    """Raises UserError if a live job holds the run directory `folder`."""
    path = folder.absolute() / NAME
    if path not in _held:
        _give_up_if_alive(path)


def _myself() -> dict[str, Any]:
    """This process, and what its number is valid in: a machine since its start, or a container."""
    machine = [socket.gethostname()]
    with contextlib.suppress(OSError):
        machine.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        machine.append(str(pathlib.Path("/proc/self/ns/pid").readlink()))
    process = psutil.Process()
    return {
        "host": machine[0],
        "machine": " ".join(machine),
        "pid": process.pid,
        "started": process.create_time(),
    }


def _create(path: pathlib.Path, owner: dict[str, Any]) -> bool:
    """Writes the lock, unless there is one: atomic on network storage too."""
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(owner, file)
    except FileExistsError:
        return False
    return True


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the owner, None where there is no lock; a damaged lock has nobody's."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _give_up_if_alive(path: pathlib.Path) -> None:
    """Removes the lock of a dead owner.

    Raises:
        UserError: The owner lives.
    """
    owner = _read(path)
    if owner is None:
        return
    here = owner.get("machine") == _myself()["machine"]
    if _runs(owner) if here else _beats(path, owner):
        owner = _read(path) or owner
        raise UserError(
            f"{path.parent} is in use by process {owner.get('pid')} on {owner.get('host')}. "
            "Wait for its end or stop it, or name another folder with --out."
        )
    # Between these two lines another job may do the same: the loser finds out by its next beat.
    if _read(path) == owner:
        path.unlink(missing_ok=True)


def _runs(owner: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(owner["pid"])
        # Numbers are used again.
        return process.create_time() == owner["started"] and process.status() != "zombie"
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return False


def _beats(path: pathlib.Path, owner: dict[str, Any]) -> bool:
    """Watches for a sign of life; clocks of two machines cannot be compared."""
    console.line(
        f"{path.parent} was in use by process {owner.get('pid')} on {owner.get('host')}: waiting "
        f"up to {PATIENCE:.0f} s for a sign of life."
    )
    first, end = _touched(path), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(BEAT / 10)
        if _touched(path) != first:
            return _read(path) is not None
    return False


def _touched(path: pathlib.Path) -> int:
    # Network storage asks the server for the time of a file when it is opened.
    with contextlib.suppress(OSError), path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return 0


def _beat(path: pathlib.Path, owner: dict[str, Any], done: threading.Event) -> None:
    """Touches the lock; ends the process, which must write no more, if it is another's now."""
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):  # storage that is away for a moment
            if _read(path) != owner:
                console.line(
                    f"lightnets: {path.parent} was taken over by another job while this one did "
                    "not run. This one ends, and writes nothing more.",
                    error=True,
                )
                os._exit(1)
            os.utime(path)
