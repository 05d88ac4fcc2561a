"""Errors that a user can cause and that end a command with one line, not a traceback."""


class UserError(Exception):
    """Something outside the program is wrong (a file, a folder, a value): exit code 1."""

    exit_code = 1


class UsageError(UserError):
    """The command line or the configuration is wrong: exit code 2."""

    exit_code = 2
