"""SIGTERM and SIGINT: finish the step, save, stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lightnets.support.errors import UserError


class Interrupted(UserError):  # noqa: N818 - not an error, what happened
    """The run was told to stop; it saved its state first. Exit code 128 + signal."""

    def __init__(self, message: str, signum: int = 0):
        super().__init__(message)
        # A worker stops in the same way when another one was told to.
        self.exit_code = 128 + (signum or signal.SIGTERM)


# Whether Ctrl-C was pressed in `in_one_line`.
pressed = threading.Event()


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Turns Ctrl-C into `Interrupted`, whatever other code makes of it.

    A library that is being imported, or a graph that runs, may answer a KeyboardInterrupt by an
    error of its own.
    """

    def note(signum: int, frame: FrameType | None) -> None:
        pressed.set()
        raise KeyboardInterrupt

    pressed.clear()
    main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, note) if main else None
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if pressed.is_set() or isinstance(error, KeyboardInterrupt):
            raise Interrupted("Interrupted.", signal.SIGINT) from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, previous)


class Interrupts:
    """Notes the first SIGTERM or SIGINT while in its context; a second one acts at once.

    Attributes:
        signum: The signal received, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        # Python takes signals in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)
