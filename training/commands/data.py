"""`lightnets data`: what is in a data set and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.support import console
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command, count
from lightnets.support.writing import check_file, check_folder, replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Damaged files, copies within and across splits, classes, sizes, formats."
    check = actions.add_parser("check", help=text, description=text)
    check.add_argument("dataset", metavar="DATA", help="TFDS name, folder, CSV or JSONL file")
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
    check.set_defaults(action_run=_check)
    text = "Write a picture of some training images as the network sees them."
    show = actions.add_parser("show", help=text, description=f"{text} Flags as in training.")
    show.add_argument("data.dataset", metavar="DATA", help="TFDS name, folder, CSV or JSONL file")
    show.add_argument(
        "--augment", action="store_true", help="as training changes them, several epochs of each"
    )
    show.add_argument("--images", type=int, default=6, metavar="N", help="rows (default: 6)")
    show.add_argument("--columns", type=int, default=8, metavar="N", help="epochs (default: 8)")
    show.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("grid.png"), metavar="FILE.png"
    )
    resolve.add_arguments(show)
    show.set_defaults(action_run=_show)
    text = "Write ArrayRecord shards, a prepared TFDS data set to name by its folder."
    convert = actions.add_parser("convert", help=text, description=text)
    convert.add_argument("dataset", metavar="DATA", help="TFDS name, folder, CSV or JSONL file")
    convert.add_argument("out", metavar="OUT", type=pathlib.Path, help="new folder")
    _add_data_flags(convert)
    convert.add_argument("--skip-corrupt", action="store_true", help="leave out damaged images")
    convert.set_defaults(action_run=_convert)


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Declares what messages about a data set advise."""
    parser.add_argument("--data-dir", help="where TFDS keeps prepared data")
    parser.add_argument(
        "--download", action="store_true", default=None, help="let TFDS download what is missing"
    )
    parser.add_argument(
        "--layout", choices=("auto", "classes", "splits"), help="what the folders in DATA are"
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
    config = _config(args)
    for flag, path in (("--fix-list", args.fix_list), ("--page", args.page)):
        if path is not None:
            check_file(path, flag)
    from lightnets.data.dataset import find
    from lightnets.doctor import examine as doctor

    dataset = find(config.data)
    if not args.json:
        console.line(dataset.describe())
    splits = doctor.examine(config, thumbnails=args.page is not None, dataset=dataset)
    found = doctor.findings(splits, dataset)
    if args.fix_list:
        _write_list(args.fix_list, found["remove"], null=args.null)
    if args.page:
        from lightnets.doctor.page import write_page

        write_page(args.page, args.dataset, splits, found)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 1 if found["wrong"] else 0


def _write_list(path: pathlib.Path, names: list[str], *, null: bool) -> None:
    if not null and (broken := [name for name in names if "\n" in name]):
        raise UserError(
            f"--fix-list: '{broken[0]}' has a line break. Add --null, and read the list by "
            "xargs -0."
        )
    with replacing(path, "wb") as file:
        file.write(b"".join(os.fsencode(name) + (b"\0" if null else b"\n") for name in names))


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
    show.write_grid(args.out, pixels, labels, names)
    console.line(f"{args.out}: recipe {config.recipe}, {config.model.image_size} pixels a side")
    return 0


def _convert(args: argparse.Namespace) -> int:
    """Writes the shards and says what is in them."""
    config = configs.update(
        _config(args), {"data": {"skip_corrupt": args.skip_corrupt}}, where="flags"
    )
    check_folder(args.out, "OUT")
    from lightnets.doctor.convert import convert

    for split, number in convert(config, args.out).items():
        console.line(f"{split}: {count(number, 'image')}")
    console.line(f"Next: {command('train', '--dataset', args.out, '--out', 'RUN')}")
    return 0


def _config(args: argparse.Namespace) -> configs.Config:
    """Returns a configuration with what the flags say of the data."""
    keys = "dataset", "data_dir", "download", "layout"
    values = {key: vars(args)[key] for key in keys if vars(args)[key] is not None}
    config = configs.from_dict({"data": values})
    for text in args.set:
        config = configs.update(config, configs.parse_assignment(text), where="--set")
    return config


def _print(found: dict[str, Any]) -> None:
    from lightnets.doctor.text import remarks, shown, wrong

    rows = []
    for name, split in found["splits"].items():
        counts = split["classes"].values()
        sizes = [_size(split[key]) for key in ("smallest", "median", "largest")]
        formats = ", ".join(f"{number} {kind}" for kind, number in split["formats"].items())
        rows.append((name, split["images"], len(counts), min(counts), max(counts), *sizes, formats))
    headers = "split", "images", "classes", "fewest per class", "most per class"
    console.table((*headers, "smallest", "median", "largest", "formats"), rows)
    for title, kinds in (("Wrong", wrong(found)), ("Worth a look", remarks(found))):
        if lines := shown(kinds):
            console.line()
            console.line(f"{title}:")
        for text in lines:
            console.line(f"  {text}")
    images = sum(split["images"] for split in found["splits"].values())
    verdict = count(len(found["wrong"]), "finding") if found["wrong"] else "nothing is wrong"
    console.line()
    console.line(f"{count(images, 'image')}: {verdict}")


def _size(size: tuple[int, int] | None) -> str:
    """Returns width x height, as people write it."""
    return "" if size is None else f"{size[1]}x{size[0]}"
