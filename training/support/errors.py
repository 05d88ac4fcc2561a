"""Errors that a user can cause and that end a command with one line, not a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Something outside the program is wrong (a file, a folder, a value): exit code 1.

    Its arguments are lines: a message, and any details.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(UserError):
    """The command line or the configuration is wrong: exit code 2."""

    exit_code = 2


@contextlib.contextmanager
def told(*kinds: type[Exception], kind: type[UserError] = UserError) -> Iterator[None]:
    """Raises `kind` in place of errors of `kinds`, whose messages are written for users."""
    try:
        yield
    except kinds as error:
        raise kind(str(error)) from None
