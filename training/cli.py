"""The console script `lightnets`: finds the command, checks its arguments, runs it.

A command is a module of `lightnets.commands` with

    add_arguments(parser)   declares flags
    run(args) -> int        the exit code: 0 ok, 1 failed; 2 is kept for usage errors

Only the module of the command at hand is imported, and TensorFlow not before its `run` has
checked the arguments, so that `--help` and every mistake answer in a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import pathlib
import sys
from collections.abc import Sequence

from keras_lightnets._version import __version__
from keras_lightnets.paths import home
from keras_lightnets.text import is_utf8
from lightnets.support import console, interrupts, quiet
from lightnets.support.arguments import Parser
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import nearest

# Name -> what it does, in the order of a first day with the package.
COMMANDS = {
    "list": "list the networks: accuracy, size, MACs of one 224x224 image",
    "info": "show one network: parameters, MACs, paper, weights",
    "rank": "which network suits some pictures, without training one",
    "embed": "write what a network sees in pictures: features with names and labels",
    "search": "find the pictures most like an image, by such features",
    "data": "check a data set, or show it as a network sees it",
    "train": "train a network; leaves a folder with weights, numbers and pictures",
    "evaluate": "measure a run, a model file, an export or a server on held-out images",
    "compare": "put finished runs side by side",
    "predict": "classify image files with any of these",
    "export": "write a run as a bundle for TensorFlow Serving, and in other formats",
    "verify": "compare exported files with their SHA256SUMS",
    "release": "choose the versions that servers offer as stable and as canary; go back",
    "serve": "serve exported models over TensorFlow Serving's REST and gRPC APIs",
}


# What people look for among the commands.
_OF_DATA = ("data check", "data show")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` and returns its exit code: 0 ok, 1 failed, 2 usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    console.escape_unprintable()
    # A user whom nobody knows, in a container: Keras would make a folder called ~ here.
    os.environ.setdefault("HOME", str(home()))
    try:
        with interrupts.in_one_line():
            return _run(argv)
    except UserError as error:
        _complain(*error.args)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (`lightnets list | head`): nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RuntimeError as error:
        if "home directory" not in str(error):  # pathlib's, about a ~
            raise
        _complain("The home folder that a ~ stands for is not known. Give the whole path.")
        return 1
    except OSError as error:
        if error.errno not in _EXPLAINED:
            raise
        path = f" {error.filename}" if error.filename else ""
        _complain(f"{error.strerror}:{path or ' (no path given)'}. {_EXPLAINED[error.errno]}")
        return 1


# What a person can do about errors of the operating system.
_EXPLAINED = {
    errno.ENOSPC: "Free some space, then run the same command again.",
    errno.EDQUOT: "Free some of your quota, then run the same command again.",
    errno.EROFS: "Choose a folder that can be written.",
    errno.EACCES: "Choose a path you have permission for.",
    errno.EPERM: "Choose a path you have permission for.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"lightnets {__version__}")
        return 0
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise UsageError("The commands run on TensorFlow: unset KERAS_BACKEND.")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever stands in keras.json
    name, *rest = argv
    if name not in COMMANDS:
        meant = nearest(name, [*COMMANDS, *_OF_DATA])
        raise UsageError(f"Unknown command {name!r}.{meant} See lightnets --help.")
    command = importlib.import_module(f"lightnets.commands.{name}")
    parser = Parser(prog=f"lightnets {name}", description=COMMANDS[name])
    parser.add_argument(
        "--verbose", action="store_true", help="show what TensorFlow prints while it starts"
    )
    command.add_arguments(parser)
    args = parser.parse_args(rest)
    _check_names(args)
    quiet.quieten(verbose=args.verbose)
    return command.run(args)


# Pictures of any name can be read: their contents are what TensorFlow gets.
_ANY_NAME = ("files", "images")


def _check_names(args: argparse.Namespace) -> None:
    """Raises UsageError for a path that TensorFlow cannot be given, before any work."""
    given = [value for name, value in vars(args).items() if name not in _ANY_NAME]
    with contextlib.suppress(OSError):  # a folder that is gone
        given.append(pathlib.Path.cwd())
    for value in given:
        if isinstance(value, (str, pathlib.Path)) and not is_utf8(str(value)):
            raise UsageError(f"The name '{value}' is not UTF-8. Rename it, or give another name.")


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lightnets COMMAND [arguments]",
            "",
            "Light image classifiers on Keras 3: train them on your pictures, serve them anywhere.",
            "",
            *lines,
            "",
            "lightnets COMMAND --help explains a command; lightnets --version prints the version.",
        ]
    )


def _complain(message: str, *details: str) -> None:
    for text in (f"lightnets: {message}", *details):
        console.line(text, error=True)


if __name__ == "__main__":
    sys.exit(main())
