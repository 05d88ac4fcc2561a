"""How long do 1.28 million files, as many as ImageNet has, take to the first batch?

    python benchmarks/listed_files.py [--kind list | folder]

A list is a CSV of so many paths, which lead to eight real files through a thousand links. A folder
has one for each of a thousand classes, with as many names of one real file in it (hard links). A
fresh process imports the package, reads either, holds out a part, writes `split.json` and makes a
batch of 256 at 224 pixels. There is no peer: the ratio is that of what the time and the memory
may be.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import common

IMAGES, CLASSES, FILES = 1_281_167, 1000, 8
SECONDS, GIGABYTES = 20.0, 1.5

CHILD = """
import os, pathlib, resource, sys, time
start = time.perf_counter()
sys.path.insert(0, sys.argv[1])
from lightnets.support import quiet
quiet.quieten()
import lightnets.data
from lightnets.config import keys as config
folder = pathlib.Path(sys.argv[2])
values = {"data": {"dataset": sys.argv[3]}, "train": {"batch_size": 256}}
splits = lightnets.data.load(config.from_dict(values), checked=True)
splits.save(folder / "split.json")
next(iter(splits.train(0, global_batch=256)))
seconds = time.perf_counter() - start
print("RESULT", seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
os._exit(0)
"""


def write_list(folder: pathlib.Path, images: int) -> pathlib.Path:
    """Writes `list.csv` and what it leads to; returns its path."""
    import pictures

    real = pictures.jpeg_folder(folder / "real", FILES, classes=1) / "class_0"
    for number in range(CLASSES):
        (folder / f"n{number:08}").symlink_to(real)
    with (folder / "list.csv").open("w") as file:
        file.write("path,label\n")
        for number in range(images):
            name = f"n{number % CLASSES:08}"
            file.write(f"{name}/{number % FILES:05}.jpg,{name}\n")
    return folder / "list.csv"


def write_folder(folder: pathlib.Path, images: int) -> pathlib.Path:
    """Writes a folder of classes; returns its path."""
    import pictures

    real = sorted(pictures.jpeg_folder(folder / "real", FILES, classes=1).glob("*/*.jpg"))
    tree = folder / "tree"
    for place in range(CLASSES):
        of_class = tree / f"n{place:08}"
        of_class.mkdir(parents=True)
        # A file of its own for each class: ext4 allows 65,000 names for one.
        first = shutil.copy(real[place % FILES], of_class / "0000.jpg")
        for number in range(1, images // CLASSES + (place < images % CLASSES)):
            os.link(first, of_class / f"{number:04}.jpg")
    return tree


KINDS = {"list": ("listed files", write_list), "folder": ("files in folders", write_folder)}


def measure(kind: str, images: int, turns: int) -> list[common.Row]:
    """Runs some fresh processes on one list or folder."""
    noun, write = KINDS[kind]
    found: dict[str, list[float]] = {"seconds": [], "bytes": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        dataset = str(write(folder, images))
        root = str(pathlib.Path(__file__).parent.parent)
        for _ in range(turns):
            command = [sys.executable, "-c", CHILD, root, temporary, dataset]
            environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
            done = subprocess.run(
                command, env=environment, text=True, check=True, stdout=subprocess.PIPE
            )
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
            for values, text in zip(found.values(), line.split()[1:], strict=True):
                values.append(float(text))
    limits = {
        ("first batch", "s"): (found["seconds"], SECONDS),
        ("memory", "GB"): ([value * 1e-9 for value in found["bytes"]], GIGABYTES),
    }
    rows = []
    for (what, unit), (values, limit) in limits.items():
        limit_name = f"limit of {limit:g} {unit}"
        turns_of = {"lightnets.data": values, limit_name: [limit] * len(values)}
        rows.append(
            common.compare(
                common.Turns(turns_of, turns_of),
                "lightnets.data",
                limit_name,
                case=f"{images:,} {noun}, {what}",
                target=1.0,
                unit=unit,
                scale=1.0,
                one_process=False,
            )
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for kind in args.kind:
        common.save("listed_files", measure(kind, args.images, args.turns), args.out)


if __name__ == "__main__":
    main()
