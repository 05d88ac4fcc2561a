"""`lightnets data check`: what is wrong with a data set, before hours are spent on it."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from training import config as configs
from training import console

HELP = "Check a data set: damaged images, copies within and across splits, balance of classes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what is checked and where the results go."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check")
    check = actions.add_parser("check", help=HELP)
    check.add_argument("dataset", metavar="DATA", help="TFDS name, folder, CSV or JSONL file")
    check.add_argument("--data-dir", help="where TFDS keeps prepared data")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--fix-list", type=pathlib.Path, metavar="FILE", help="write the damaged images there"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the findings; exit code 1 if something is wrong."""
    values = {"dataset": args.dataset, "data_dir": args.data_dir}
    config = configs.from_dict({"data": values})
    found = examine(config)
    damaged = [name for part in found["splits"].values() for name in part["damaged"]]
    if args.fix_list:
        from training.run import write_text

        write_text(args.fix_list, "".join(f"{name}\n" for name in damaged))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 1 if damaged or found["copies_across_splits"] else 0


def examine(config: configs.Config) -> dict[str, Any]:
    """Returns counts, damaged images and exact copies of all splits, ready for JSON."""
    import hashlib

    import numpy as np

    from training.data import check
    from training.data.load import open_dataset

    opened = open_dataset(config)
    splits: dict[str, Any] = {}
    places: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
    for split, source in (("train", opened.train), ("evaluation", opened.evaluation)):
        if source is None:
            continue
        damaged, sizes = {}, []
        for position, size, error in check.decoded_sizes(source):
            if error is None:
                sizes.append(size)
            else:
                damaged[position] = error
        check.remember(source, damaged)
        counts = np.bincount(source.read_labels(), minlength=len(opened.labels))
        files = (
            source.references(64)
            .unbatch()
            .map(lambda reference, weight, source=source: source.open(reference)[0])
        )
        # A missing file ends nothing: it is among the damaged ones already.
        for position, contents in enumerate(_values(files, source.count)):
            if position not in damaged:
                key = hashlib.sha256(contents).hexdigest()
                places[key].append((split, source.name(position)))
        splits[split] = {
            "images": source.count,
            "classes": dict(zip(opened.labels, counts.tolist(), strict=True)),
            "smallest": min(sizes, default=None),
            "largest": max(sizes, default=None),
            "damaged": {source.name(place): reason for place, reason in damaged.items()},
        }
    copies = [place for place in places.values() if len(place) > 1]
    across = [group for group in copies if len({split for split, _ in group}) > 1]
    return {
        "splits": splits,
        "copies": [[name for _, name in group] for group in copies],
        "copies_across_splits": [[name for _, name in group] for group in across],
    }


def _values(files: Any, count: int) -> Iterator[bytes]:
    """Yields the contents of `count` files, nothing for those that cannot be read."""
    import tensorflow as tf

    iterator = iter(files)
    for _ in range(count):
        try:
            yield next(iterator).numpy()
        except tf.errors.OpError:
            yield b""


def _print(found: dict[str, Any]) -> None:
    rows = []
    for split, part in found["splits"].items():
        counts = part["classes"].values()
        rows.append((split, part["images"], len(counts), min(counts), max(counts)))
        for name, reason in part["damaged"].items():
            console.line(f"{name}: {reason}")
    for group in found["copies"]:
        console.line(f"The same file: {', '.join(group)}")
    console.table(("split", "images", "classes", "fewest per class", "most per class"), rows)
    if found["copies_across_splits"]:
        console.line("Images of the training set are in the evaluation set: see above.")
