"""`lightnets data`: what is in a data set and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.config.tasks import DEFAULT, flags
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command, count, shell_word
from lightnets.support.writing import check_file, write_paths

# Flags of `check` beside `--set`: what messages about a data set advise.
_FLAGS = ("--data-dir", "--download", "--layout", "--task")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Damaged files, copies within and across splits, classes, sizes, formats."
    check = _add_action(actions, "check", _check, text)
    _add_data_flags(check)
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--fix-list", type=pathlib.Path, metavar="FILE", help="write paths to remove, one a line"
    )
    check.add_argument(
        "--null", "-0", action="store_true", help="end each path of the list by NUL, as xargs -0"
    )
    check.add_argument(
        "--page", type=pathlib.Path, metavar="FILE.html", help="write a page with thumbnails"
    )
    text = "Write a picture of some training images as the network sees them."
    show = _add_action(actions, "show", _show, text)
    show.add_argument(
        "--augment", action="store_true", help="as training changes them, several epochs of each"
    )
    show.add_argument("--images", type=int, default=6, metavar="N", help="rows (default: 6)")
    show.add_argument("--columns", type=int, default=8, metavar="N", help="epochs (default: 8)")
    show.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("grid.png"), metavar="FILE.png"
    )
    resolve.add_arguments(show)


def _add_action(
    actions: Any, name: str, action: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(action_run=action)
    parser.add_argument("data.dataset", metavar="DATA", help="TFDS name, folder, CSV or JSONL file")
    return parser


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that say where a data set is and how it is read."""
    for one in configs.declared():
        if one.flag in _FLAGS:
            kind: dict[str, Any] = {"metavar": one.metavar}
            if one.type is bool:
                kind = {"action": "store_true"}
            parser.add_argument(
                one.flag, dest=one.name, help=one.help, default=argparse.SUPPRESS, **kind
            )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="data.KEY=VALUE",
        help="set any key of the data; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the action that was named."""
    return args.action_run(args)


def _check(args: argparse.Namespace) -> int:
    """Prints the findings; exit code 1 if something is wrong."""
    config = configs.from_dict(resolve.flag_values(args))
    if "train.task" not in vars(args):
        config = configs.update(config, {"train": {"task": _guessed(config)}}, where="the list")
    for flag, path in (("--fix-list", args.fix_list), ("--page", args.page)):
        if path is not None:
            check_file(path, flag)
    from lightnets.data.dataset import find
    from lightnets.doctor import examine, findings

    dataset = find(config.data, config.train.task)
    if not args.json:
        console.line(dataset.describe())
    splits = examine.examine(config, dataset, thumbnails=args.page is not None)
    found = findings.findings(splits, dataset)
    remove = found["remove"]
    if args.fix_list:
        _write_list(args.fix_list, remove, null=args.null)
    if args.page:
        from lightnets.doctor.page import write_page

        write_page(args.page, config.data.dataset, splits, found)
    wrong, remarks = findings.lines(found["wrong"]), findings.lines(found["remarks"])
    if args.json:
        print(json.dumps(found | {"wrong": wrong, "remarks": remarks}, indent=2))
    else:
        _print(found)
        for line in _next(args, config, remove, wrong):
            console.line(line)
    return 1 if wrong else 0


def _guessed(config: configs.Config) -> str:
    """Returns the task that a list seems to be for, of anything else classification."""
    from lightnets.data.sources import lists

    path = pathlib.Path(config.data.dataset).expanduser()
    return lists.guess_task(path) if lists.is_list(path) else DEFAULT


def _next(
    args: argparse.Namespace, config: configs.Config, remove: list[str], wrong: list[str]
) -> Iterator[str]:
    """Yields what was written, how to use it, and the command that goes on."""
    dataset = config.data.dataset
    if args.page:
        yield f"Page: {args.page}"
    if args.fix_list and remove:
        yield f"{args.fix_list}: {count(len(remove), 'file')} to remove. Look at them first, then:"
        separator = "-0" if args.null else r"-d '\n'"
        yield f"  xargs {separator} rm -- < {shell_word(args.fix_list)}"
        yield f"Next: {command('data', 'check', dataset)}"
    elif remove:
        yield f"Next: {command('data', 'check', dataset, '--fix-list', 'remove.txt')}"
    elif wrong:
        yield f"When it is mended: {command('data', 'check', dataset)}"
    else:
        yield f"Next: {command('train', dataset, *flags(config.train.task))}"


def _write_list(path: pathlib.Path, names: list[str], *, null: bool) -> None:
    if not null and (broken := [name for name in names if "\n" in name]):
        raise UserError(
            f"--fix-list: '{broken[0]}' has a line break. Add --null, and read the list by "
            "xargs -0."
        )
    write_paths(path, names, b"\0" if null else b"\n")


def _show(args: argparse.Namespace) -> int:
    """Writes the grid."""
    if not (1 <= args.images <= 64 and 1 <= args.columns <= 64):
        raise UsageError(
            f"--images and --columns must be 1 to 64. Received: {args.images} and {args.columns}."
        )
    config = resolve.resolve(args)
    check_file(args.out, "--out")
    from lightnets.doctor import show

    pixels, labels, names = show.views(
        config, images=args.images, epochs=args.columns, augment=args.augment
    )
    show.write_grid(args.out, pixels, labels, names, config.train.task)
    console.line(f"{args.out}: recipe {config.recipe}, images of {config.model.image_size} pixels")
    again = command("train", config.data.dataset, *flags(config.train.task))
    console.line(f"Next: {again}")
    return 0


def _print(found: dict[str, Any]) -> None:
    from lightnets.doctor import findings

    console.table(*findings.table(found))
    for title, key in (("Wrong", "wrong"), ("Worth a look", "remarks")):
        if lines := findings.first_lines(found[key]):
            for text in ("", f"{title}:", *(f"  {line}" for line in lines)):
                console.line(text)
    console.line()
    images = sum(split["images"] for split in found["splits"].values())
    console.line(f"{count(images, 'image')}: {findings.verdict(found)}")
