"""`lightnets predict`: the classes of image files."""

from __future__ import annotations

import argparse
import collections
import contextlib
import glob
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keras_lightnets.serving.client import Client
from keras_lightnets.serving.transport import ClientError
from lightnets.run import directory as runs
from lightnets.run import networks
from lightnets.support import arguments, console
from lightnets.support.errors import UsageError, UserError, told
from lightnets.support.words import command, count
from lightnets.support.writing import check_file, check_folder, csv_text, write_text

# A file, and what is said of it, as `Task.shown` takes it, or why there is nothing.
Answer = tuple[pathlib.Path, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model, the files and the form of the answer."""
    parser.add_argument(
        "target",
        metavar="MODEL",
        help="run directory, .keras or published weight file, SavedModel, or the URL of a server; "
        "left out with --model",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="image files, folders or globs; - reads names from standard input, one a line",
    )
    networks.add_arguments(parser)
    whole = arguments.whole(1)
    parser.add_argument(
        "--top", "--top-k", type=whole, default=1, metavar="K", help="classes per image"
    )
    parser.add_argument("--format", choices=("table", "csv", "json", "jsonl"), default="table")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="write there instead")
    parser.add_argument(
        "--save-images",
        type=pathlib.Path,
        metavar="DIR",
        help="write a copy of each picture there, its class above it",
    )
    parser.add_argument("--batch-size", type=whole, default=32, help="images in one call")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="for a server to answer"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts; a file that is no image is named and the rest go on, with exit code 1."""
    networks.check(args)
    if args.model is not None:
        args.target, args.files = None, [args.target, *args.files]
    elif not (networks.is_url(args.target) or pathlib.Path(args.target).exists()):
        raise UserError(f"There is no {args.target}.")
    if not args.files:
        raise UsageError("Which images? Name files, folders or globs.")
    if args.out:
        check_file(args.out, "--out")
    if args.save_images:
        check_folder(args.save_images, "--save-images")
    paths = list(find(args.files))
    by_server = args.target is not None and networks.is_url(args.target)
    answers = (_by_server if by_server else _by_network)(args, paths)
    rows, failed = [], 0
    for path, best in console.bar(answers, "Classifying", len(paths)):
        if isinstance(best, str):
            console.line(f"lightnets: {path}: {best}", error=True)
            failed += 1
        else:
            rows.append((path, best))
            if args.save_images:
                _save(path, best, args.save_images)
    if args.out:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            show(rows, args.format)
        write_text(args.out, text.getvalue())
    else:
        show(rows, args.format)
        # A person reads the table; what a program reads ends with the answers.
        if (
            args.format == "table"
            and sys.stdout.isatty()
            and args.target
            and runs.is_run(args.target)
        ):
            console.line(f"Next: {command('export', args.target, '--out', 'served')}")
    if failed:
        console.line(f"lightnets: {failed} of {count(len(paths), 'file')} failed", error=True)
    return 1 if failed else 0


def _save(path: pathlib.Path, answer: Any, folder: pathlib.Path) -> None:
    from lightnets import tasks
    from lightnets.evaluation import drawn

    folder.mkdir(parents=True, exist_ok=True)
    drawn.save(path, *tasks.of_answer(answer).title(answer), folder)


def _by_server(args: argparse.Namespace, paths: Sequence[pathlib.Path]) -> Iterator[Answer]:
    """Yields what a server says of each file."""
    with told(ValueError, kind=UsageError):
        client = Client(args.target, timeout_s=args.timeout)
    with client, told(ClientError):
        _ = client.model  # what is wrong here is not the fault of an image
        for path in paths:
            try:
                (best,) = client.ask(path, args.top)
            except ClientError as error:
                best = str(error).removeprefix(f"{path}: ")
                # No server, or no such model: the other images would fare no better.
                if error.status in (None, 404):
                    raise UserError(best) from None
            except OSError as error:
                best = str(error.strerror)
            yield path, best


def _by_network(args: argparse.Namespace, paths: Sequence[pathlib.Path]) -> Iterator[Answer]:
    """Yields what a network says of each file."""
    from lightnets import tasks
    from lightnets.run import artifacts

    artifact = artifacts.open(
        args.target, args.model, args.weights, args.transform_of, images=len(paths)
    )
    if artifact.transform is None:
        raise networks.no_transform(str(args.target or args.model))
    task = tasks.of(artifact.task)
    for path, found in predictions(artifact, paths, args.batch_size):
        if not isinstance(found, str):
            numbers, known = found
            names = artifact.labels or [str(number) for number in range(len(numbers))]
            found = task.answer(numbers, names, known, args.top)
        yield path, found


def find(names: Sequence[str]) -> Iterator[pathlib.Path]:
    """Yields the files that the names, folders and globs stand for; says what folders skip.

    A name that stands for nothing is yielded itself: who reads it will say that it is not there.
    """
    for name in names:
        if name == "-":
            # Bytes, since a name may have any.
            lines = sys.stdin.buffer.read().splitlines()
            yield from find([os.fsdecode(line) for line in lines if line])
            continue
        files = []
        for match in _matches(pathlib.Path(name)):
            if match.is_dir():
                from lightnets.data.sources import listing

                found = listing.find_images(match)
                files += map(pathlib.Path, found.images)
                if found.skipped:
                    left_out = listing.counted(found.skipped)
                    console.line(f"lightnets: {match}: left out: {left_out}", error=True)
            else:
                files.append(match)
        yield from files or [pathlib.Path(name)]


def _matches(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns what a name or glob stands for. What exists is no glob: a folder may be `exp[1]`."""
    if path.exists():
        return [path]
    base = next(parent for parent in path.parents if parent.is_dir())
    pattern = str(path.relative_to(base))
    return [base / name for name in sorted(glob.glob(pattern, root_dir=base, recursive=True))]  # noqa: PTH207


def predictions(artifact, paths: Sequence[pathlib.Path], batch_size: int) -> Iterator[tuple]:
    """Yields `(path, (probabilities, known))` for each file, or `(path, why it is no image)`."""
    import numpy as np
    import tensorflow as tf

    from keras_lightnets import preprocessing
    from lightnets.data import check, pillow
    from lightnets.data.sources import listing

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def pixels(contents):
        return preprocessing.evaluation_image(contents, artifact.transform, pillow.png)

    def read(path):
        if not os.path.lexists(path):
            return "there is no such file"
        if reason := listing.obstacle(path):
            return reason
        if path.is_dir():
            return "a folder without pictures"
        try:
            return pixels(path.read_bytes()).numpy()
        except tf.errors.OpError as error:
            return check.reason(error)
        except OSError as error:
            return error.strerror

    for batch in _read_ahead(read, paths, batch_size):
        images = [answer for _, answer in batch if not isinstance(answer, str)]
        found = iter(())
        if images:
            probabilities, known = artifact.answer(np.stack(images))
            told = [None] * len(images) if known is None else known.tolist()
            found = zip(probabilities, told, strict=True)
        for path, answer in batch:
            yield path, answer if isinstance(answer, str) else next(found)


def _read_ahead(
    read: Callable[[pathlib.Path], Any], paths: Sequence[pathlib.Path], batch_size: int
) -> Iterator[list[tuple[pathlib.Path, Any]]]:
    """Yields the files of each batch with what `read` makes of them.

    Threads read a batch while the network is busy with the one before it.
    """
    with ThreadPoolExecutor() as pool:
        ahead = collections.deque()
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            ahead.append(zip(part, pool.map(read, part), strict=True))
            if len(ahead) > 1:
                yield list(ahead.popleft())
        yield from map(list, ahead)


def show(rows: list[tuple[pathlib.Path, Any]], form: str) -> None:
    """Prints the answers in one of the forms of `--format`."""
    from lightnets import tasks

    answers = [(str(path), answer) for path, answer in rows]
    task = tasks.of_answer(answers[0][1]) if answers else tasks.of(None)
    shown = task.shown(answers, exact=form == "csv")
    if form == "json":
        print(json.dumps(shown.records, indent=2))
    elif form == "jsonl":
        for record in shown.records:
            print(json.dumps(record))
    elif form == "csv":
        print(csv_text(shown.header, shown.cells), end="")
    else:
        console.table(shown.header, shown.cells)
