"""`lightnets data`: what is in a data set and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

from training import config as configs
from training import console, resolve
from training.errors import UsageError
from training.words import command, count
from training.writing import check_file, check_folder, replacing

HELP = "Check a data set, show it as a network sees it, or convert it to ArrayRecord."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Damaged files, copies within and across splits, classes, sizes, formats."
    check = actions.add_parser("check", help=text, description=text)
    check.add_argument("dataset", metavar="DATA", help="TFDS name, folder, CSV or JSONL file")
    check.add_argument("--data-dir", help="where TFDS keeps prepared data")
    check.add_argument(
        "--layout", choices=("auto", "classes", "splits"), help="what the folders in DATA are"
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--fix-list", type=pathlib.Path, metavar="FILE", help="write paths to remove, one a line"
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
    convert.add_argument("--data-dir", help="where TFDS keeps prepared data")
    convert.add_argument(
        "--layout", choices=("auto", "classes", "splits"), help="what the folders in DATA are"
    )
    convert.add_argument("--skip-corrupt", action="store_true", help="leave out damaged images")
    convert.set_defaults(action_run=_convert)


def run(args: argparse.Namespace) -> int:
    """Runs the action that was named."""
    return args.action_run(args)


def _check(args: argparse.Namespace) -> int:
    """Prints the findings; exit code 1 if something is wrong."""
    config = configs.from_dict({"data": _values(args)})
    for flag, path in (("--fix-list", args.fix_list), ("--page", args.page)):
        if path is not None:
            check_file(path, flag)
    from training.data import doctor
    from training.data.dataset import find

    dataset = find(config.data)
    if not args.json:
        console.line(dataset.describe())
    splits = doctor.examine(config, thumbnails=args.page is not None, dataset=dataset)
    found = doctor.findings(splits, dataset)
    if args.fix_list:
        with replacing(args.fix_list, "wb") as file:
            file.write(b"".join(os.fsencode(name) + b"\n" for name in found["remove"]))
    if args.page:
        from training.data.doctor_page import write_page

        write_page(args.page, args.dataset, splits, found)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 1 if found["wrong"] else 0


def _show(args: argparse.Namespace) -> int:
    """Writes the grid."""
    if not (1 <= args.images <= 64 and 1 <= args.columns <= 64):
        raise UsageError(
            f"--images and --columns must be 1 to 64. Received: {args.images} and {args.columns}."
        )
    config = resolve.resolve(args)
    check_file(args.out, "--out")
    from training.data import show

    pixels, labels, names = show.views(
        config, images=args.images, epochs=args.columns, augment=args.augment
    )
    show.write_grid(args.out, pixels, labels, names)
    console.line(f"{args.out}: recipe {config.recipe}, {config.model.image_size} pixels a side")
    return 0


def _convert(args: argparse.Namespace) -> int:
    """Writes the shards and says what is in them."""
    config = configs.from_dict({"data": _values(args) | {"skip_corrupt": args.skip_corrupt}})
    check_folder(args.out, "OUT")
    from training.data.convert import convert

    for split, number in convert(config, args.out).items():
        console.line(f"{split}: {count(number, 'image')}")
    console.line(f"Next: {command('train', '--dataset', args.out, '--out', 'RUN')}")
    return 0


def _values(args: argparse.Namespace) -> dict[str, str]:
    """Returns the keys of the section `data` that the flags set."""
    keys = "dataset", "data_dir", "layout"
    return {key: vars(args)[key] for key in keys if vars(args)[key] is not None}


def _print(found: dict[str, Any]) -> None:
    from training.data.doctor_text import remarks, shown, wrong

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
