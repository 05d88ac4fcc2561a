"""`lightnets evaluate`: the same numbers for a run, a model file, an export or a server."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import io
import json
import pathlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_lightnets.text import first_line
from training import config as configs
from training import console
from training import run as runs
from training.errors import UsageError, UserError
from training.words import count
from training.writing import write_json

if TYPE_CHECKING:
    import numpy as np

HELP = "Measure accuracy on held-out images: of a run, a model file, an export or a server."
_URL = re.compile(r"^(https?|grpc)://")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what is measured and on which images."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="run directory, .keras, SavedModel or OpenVINO directory, .tflite, .onnx, or the URL "
        "of a served model (http://127.0.0.1:8501/v1/models/NAME)",
    )
    parser.add_argument(
        "--run", type=pathlib.Path, metavar="RUN", help="take the held-out images of this run"
    )
    parser.add_argument("--dataset", help="measure on the held-out images of another data set")
    parser.add_argument("--split", help="split of --dataset or of the run's data, TFDS syntax")
    parser.add_argument("--data-dir", help="where TFDS keeps prepared data")
    parser.add_argument("--batch-size", type=int, default=32, help="images in one call")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="K of the top-K accuracy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=pathlib.Path, help="folder for tables and pictures")
    parser.add_argument(
        "--predictions", type=pathlib.Path, metavar="CSV", help="file for a row per image"
    )


def run(args: argparse.Namespace) -> int:
    """Measures and prints; writes files only where `--out` says."""
    if args.batch_size < 1 or args.top < 1:
        raise UsageError("--batch-size and --top must be at least 1.")
    for flag, path in (("--out", args.out), ("--predictions", args.predictions)):
        if path is not None:
            _check_place(flag, path)
    source = _find_run(args)
    if not _URL.match(args.target) and not pathlib.Path(args.target).exists():
        raise UserError(f"There is no {args.target}.")

    from training import artifacts, report, scoring

    with contextlib.closing(artifacts.open(args.target)) as artifact:
        splits = _splits(args, source, artifact)
        if artifact.transform is not None:
            splits = dataclasses.replace(splits, transform=artifact.transform)
        if list(artifact.labels or splits.labels) != list(splits.labels):
            raise UserError(
                f"The classes of {args.target} ({_few(artifact.labels)}) are not those of the data "
                f"({_few(splits.labels)})."
            )
        predict = _checked(artifact.predict, args.target, len(splits.labels))
        true, probabilities = scoring.predict_split(predict, splits, args.batch_size)
    results = {"target": args.target, **scoring.score(true, probabilities, args.top)}
    rows = report.per_class(true, probabilities, splits.labels)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "results.json", {**results, "per_class": rows})
        report.write_per_class(rows, args.out / "per_class.csv")
        report.write_confusion_matrix(
            true, probabilities, splits.labels, args.out / "confusion_matrix.png"
        )
    if args.predictions:
        _write_predictions(args.predictions, true, probabilities, splits.labels)
    if args.json:
        print(json.dumps({**results, "per_class": rows}))
    else:
        _print(results, rows)
    return 0


def _check_place(flag: str, path: pathlib.Path) -> None:
    """Raises UserError, before anything is measured, if nothing can be written there."""
    folder = path if flag == "--out" else path.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag}: {folder} is no folder.")
    if flag == "--predictions" and not folder.is_dir():
        raise UserError(f"{flag}: there is no folder {folder}.")


def _checked(
    predict: Callable[[np.ndarray], np.ndarray], target: str, classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns `predict`, which names what a model that was made elsewhere does not do."""

    def checked(images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        try:
            probabilities = predict(images)
        except UserError:
            raise
        except Exception as error:  # every runtime has its own
            raise UserError(
                f"{target} does not take images of {width}x{height} pixels: {first_line(error)}"
            ) from None
        shape = tuple(probabilities.shape)
        if shape != (len(images), classes):
            raise UserError(
                f"{target} answers {len(images)} images by an array of shape {shape}, not by a "
                f"probability for each of the {classes} classes of the data."
            )
        return probabilities

    return checked


def _find_run(args: argparse.Namespace) -> pathlib.Path | None:
    """Returns the run whose data is meant: `--run`, the target, or the run it lies in."""
    if args.run:
        runs.check_is_run(args.run)
        return args.run
    if _URL.match(args.target):
        return None
    target = pathlib.Path(args.target)
    for folder in (target, *target.resolve().parents):
        if (folder / "config.yaml").is_file() and (folder / "labels.txt").is_file():
            return folder
    if target.is_dir() and (target / "config.yaml").is_file():
        return target
    return None


def _splits(args: argparse.Namespace, source: pathlib.Path | None, artifact: Any) -> Any:
    """Returns the data to measure on, transformed as the run does it, if there is one."""
    from training import data

    changes = {
        key: value
        for key, value in (
            ("dataset", args.dataset),
            ("eval_split", args.split),
            ("data_dir", args.data_dir),
        )
        if value is not None
    }
    if source is not None:
        run = runs.Run.open(source)
        if not changes:
            return run.splits()
        config = run.config
        saved = None if args.dataset else run.path
    elif args.dataset:
        if artifact.transform is None:
            raise UserError(f"{args.target} does not say how images are prepared. Add --run RUN.")
        size = artifact.transform.image_size[0]
        config = configs.from_dict({"model": {"image_size": size}})
        saved = None
    else:
        raise UsageError("Which images? Add --run RUN or --dataset NAME.")
    section = configs.update(config.data, changes, where="the command line")
    return data.load(dataclasses.replace(config, data=section), saved=saved)


def _write_predictions(
    path: pathlib.Path, true: np.ndarray, probabilities: np.ndarray, labels: list[str]
) -> None:
    """Writes true and predicted class of each held-out image, in the order of evaluation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "true", "predicted", "probability"])
    for number, (label, row) in enumerate(zip(true, probabilities, strict=True)):
        best = int(row.argmax())
        writer.writerow([number, labels[label], labels[best], f"{row[best]:.6f}"])
    runs.write_text(path, text.getvalue())


def _print(results: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    console.line(f"{results['target']}: {count(results['images'], 'held-out image')}")
    for key, value in results.items():
        if key not in ("target", "images"):
            console.line(f"  {key.replace('_', ' '):<16}{value:.4f}")
    console.table(
        ("class", "precision", "recall", "f1", "images"),
        [
            [
                row["class"],
                *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")),
                row["images"],
            ]
            for row in rows
        ],
    )


def _few(labels: Any) -> str:
    labels = list(labels)
    return ", ".join(labels[:5]) + (f", ... {len(labels)} in all" if len(labels) > 5 else "")
