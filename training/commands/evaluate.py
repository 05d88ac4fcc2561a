"""`lightnets evaluate`: the same numbers for a run, a model file, an export or a server."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_lightnets.text import first_line
from lightnets.config import keys as configs
from lightnets.config import resolve
from lightnets.config.tasks import DEFAULT
from lightnets.evaluation import rejection
from lightnets.run import directory as runs
from lightnets.run import networks
from lightnets.support import arguments, console
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command, count, some
from lightnets.support.writing import check_file, check_folder, write_json

if TYPE_CHECKING:
    import keras
    import numpy as np

    from lightnets.data import Splits
    from lightnets.data.held_out import HeldOut
    from lightnets.evaluation.scoring import Predictions
    from lightnets.tasks import Task

# Mistakes that are named.
_WORST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what is measured and on which images."""
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="run directory, .keras or published weight file, SavedModel or OpenVINO directory, "
        ".tflite, .onnx, or the URL of a served model (http://127.0.0.1:8501/v1/models/NAME)",
    )
    networks.add_arguments(parser)
    parser.add_argument(
        "--run", type=pathlib.Path, metavar="RUN", help="take the held-out images of this run"
    )
    parser.add_argument("--dataset", metavar="DATA", help="measure on another data set")
    parser.add_argument(
        "--split", help="measure on this split alone; else on all that was not trained on"
    )
    resolve.add_place(parser)
    whole = arguments.whole(1)
    parser.add_argument("--batch-size", type=whole, default=32, help="images in one call")
    parser.add_argument("--top", type=whole, default=5, metavar="K", help="K of the top-K accuracy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=pathlib.Path, help="folder for tables and pictures")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        help="write the report of each split into the run TARGET (default: of those that training "
        "has not written, but not with --json)",
    )
    rejection.add_arguments(parser)
    parser.add_argument(
        "--predictions", type=pathlib.Path, metavar="CSV", help="file for a row per image"
    )


class _Measured(NamedTuple):
    """What was measured.

    Attributes:
        found: The images.
        task: What the numbers mean.
        answers: By split.
        every: All of them.
        results: Their numbers, for programs.
    """

    found: HeldOut
    task: Task
    answers: Mapping[str, Predictions]
    every: Predictions
    results: dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Measures and prints; writes reports into a run, and other files where flags say."""
    source, own = _check(args)
    unknown = rejection.check(args)

    import numpy as np

    from lightnets import tasks
    from lightnets.data import Splits, check, evaluation_transform
    from lightnets.evaluation import scoring
    from lightnets.run import artifacts

    opened = functools.cache(lambda: _of_run(args))
    rule = {}
    if args.reject is not None:
        rule["rejection"] = dict(rejection.fit(*opened(), args.reject, unknown).about)
    with contextlib.closing(
        artifacts.open(args.target, args.model, args.weights, args.transform_of)
    ) as artifact:
        found, config, notes = _held_out(args, source, artifact)
        task = tasks.of(artifact.task or _task_of(source, config))
        predict = _checked(artifact.predict, args.target, len(found.labels))
        transform = artifact.transform or evaluation_transform(config)
        answers = {}
        for name, images in found.sources.items():
            splits = Splits(found.labels, transform, images, images, config)
            with check.explained(images, found.dataset.name):
                answers[name] = scoring.predict_split(
                    predict, splits, args.batch_size, dense=task.dense
                )
    true, numbers, _ = zip(*answers.values(), strict=True)
    every = scoring.Predictions(np.concatenate(true), np.concatenate(numbers), found.labels)
    results = {
        "target": args.target,
        **task.score(every, args.top),
        "splits": {name: task.score(each, args.top) for name, each in answers.items()},
        "left_out": found.left_out,
        "missing_classes": found.missing(every.true),
        "notes": notes,
        task.table: task.rows(every),
        **rule,
    }
    done = _Measured(found, task, answers, every, results)
    _write(args, done)
    if not args.json:
        _print(done)
        for line in _worst(done):
            console.line(line)
    if own is not None and (names := _to_report(args, own, done)):
        results["reports"] = [*map(str, _write_reports(own, *opened(), done, names))]
    if args.json:
        print(json.dumps(results))
    else:
        for line in _next(args, own, results.get("reports")):
            console.line(line)
    return 0


def _write(args: argparse.Namespace, done: _Measured) -> None:
    """Writes the files that flags name."""
    task = done.task
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "results.json", done.results)
        task.write_rows(done.results[task.table], args.out)
        task.draw(done.every, args.out)
    if args.predictions:
        task.write_predictions(done.found.sources.values(), done.every, args.predictions)


def _to_report(args: argparse.Namespace, own: pathlib.Path, done: _Measured) -> list[str]:
    """Returns the splits that get a page; unasked, for a person, those that training has not."""
    from lightnets.evaluation import page

    if args.report is not None:
        return list(done.answers) if args.report else []
    if args.json or not (own / "results.json").is_file():
        return []
    written = done.found.chose if (own / page.NAME).is_file() else None
    return [name for name in done.answers if name != written]


def _of_run(args: argparse.Namespace) -> tuple[keras.Model, Splits]:
    """Returns the network and the data of the run TARGET, which may have moved."""
    run = runs.Run.open(args.target)
    moved = args.dataset is not None and _has_moved(run, args.dataset)
    return run.model(), run.splits(args.dataset if moved else None)


def _write_reports(
    path: pathlib.Path, model: keras.Model, splits: Splits, done: _Measured, names: Sequence[str]
) -> Iterator[pathlib.Path]:
    """Writes a page on each of these splits into the run, as training does; yields their paths."""
    from lightnets.evaluation import page
    from lightnets.run import speed

    task, found = done.task, done.found
    one_image, in_batch = speed.milliseconds(model, (1, 32))
    about = {
        **json.loads((path / "results.json").read_text()),
        "environment": json.loads((path / runs.ENVIRONMENT).read_text()),
        **{"one_image": one_image, "in_batch": in_batch},
        **{key: value for key, value in done.results.items() if key == "rejection"},
    }
    for name in names:
        own = done.answers[name]
        results = {**about, **task.score(own), task.table: task.rows(own)}
        split = None if name == found.chose else name
        file = path / (page.NAME if split is None else page.name_of(split))
        images = dataclasses.replace(splits, eval_source=found.sources[name])
        task.write_page(images, results, own, model, split, file)
        yield file


def _worst(done: _Measured) -> Iterator[str]:
    """Yields the worst answers, with their files."""
    wrong, sources = done.task.worst(done.every), done.found.sources.values()
    if not len(wrong):
        return
    yield f"{done.task.mistakes}:"
    names = [(source, place) for source in sources for place in range(source.count)]
    for image in wrong[:_WORST]:
        source, place = names[image]
        yield f"  {source.name(place)}: {done.task.words(done.every, image)}"


def _next(
    args: argparse.Namespace, own: pathlib.Path | None, reports: Sequence[str] | None
) -> Iterator[str]:
    """Yields what was written, and the command that goes on."""
    for path in filter(None, (args.out, args.predictions)):
        yield f"Wrote {path}"
    if own is not None:
        if not reports and (own / "report.html").is_file():
            reports = [str(own / "report.html")]
        yield from (f"Report: {path}" for path in reports or ())
        yield f"Next: {command('export', own, '--out', 'served')}"


def _check(args: argparse.Namespace) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Checks what can be checked in a moment.

    Returns:
        The run whose data is meant; it once more if it is the target itself, not a file in it.
    """
    if args.out:
        check_folder(args.out, "--out")
    if args.predictions:
        check_file(args.predictions, "--predictions")
    networks.check(args)
    if (args.target is None) == (args.model is None):
        raise UsageError("Name what is measured: a TARGET, or --model NAME.")
    source = _find_run(args)
    own = source if args.target and pathlib.Path(args.target) == source else None
    if args.reject is not None and own is None:
        raise UsageError("--reject is fitted to a run: name its directory as TARGET.")
    if args.report:
        if own is None:
            raise UsageError("--report writes into a run: name its directory as TARGET.")
        if not (own / "results.json").is_file():
            again = command("train", "--resume", own)
            raise UserError(f"--report needs a run that is finished: {again}")
    if args.model is not None:
        args.target = f"{args.model} ({args.weights or 'imagenet'})"
    elif not networks.is_url(args.target) and not pathlib.Path(args.target).exists():
        raise UserError(f"There is no {args.target}.")
    return source, own


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
    if args.target is None or networks.is_url(args.target):
        return None
    target = pathlib.Path(args.target)
    for folder in (target, *target.resolve().parents):
        # Without labels it is a damaged run, or no run at all: only the target itself is asked.
        whole = folder == target or (folder / "labels.txt").is_file()
        if whole and runs.is_run(folder):
            return folder
    return None


def _held_out(
    args: argparse.Namespace, source: pathlib.Path | None, artifact: Any
) -> tuple[HeldOut, configs.Config, list[str]]:
    """Returns the images to measure on, how they are read, and what is to be said of them."""
    from lightnets import data
    from lightnets.data import held_out
    from lightnets.data.dataset import find

    given = resolve.place(args, args.dataset)
    run = None if source is None else runs.Run.open(source)
    same = run is not None and _is_same(args.dataset, run.config.data.dataset)
    if run is not None and (same or _has_moved(run, args.dataset)):
        if same:
            given.pop("dataset", None)
        config = configs.update(run.config, {"data": given}, where="the command line")
        splits = data.load(config, saved=run.path)
        found, notes = held_out.of_run(splits), []
        if args.split is not None:
            found, trained = held_out.of_split(splits, args.split)
            notes += ["The run was trained on these images."] * trained
        if artifact.labels and list(artifact.labels) != found.labels:
            found = found.for_network(artifact.labels, args.target)
        return found, config, notes
    if not args.dataset:
        raise UsageError("Which images? Add --run RUN or --dataset NAME.")
    if run is None and artifact.transform is None:
        raise networks.no_transform(args.target)
    if run is None:
        config = configs.from_dict({"data": given})
    else:
        # Where the run's own data lies and what its folders are says nothing of other data.
        own = {"layout": "auto", "train_split": None, "eval_split": None}
        config = configs.update(run.config, {"data": own | given}, where="the command line")
    dataset = find(config.data, (artifact.task or {}).get("name", config.train.task))
    labels = artifact.labels or (dataset.classes if run is None else run.labels)
    found = held_out.of_dataset(
        dataset, labels, args.target, split=args.split, known=run is not None
    )
    return found, config, [] if run is None else _overlap(run, found)


def _task_of(source: pathlib.Path | None, config: configs.Config) -> Mapping[str, Any] | None:
    """Returns the task of a target that does not say it, such as a server: that of the run."""
    from keras_lightnets.layers.notes import notes

    if source is None or config.train.task == DEFAULT:
        return None
    return notes(runs.Run.open(source).model()).get("task")


def _is_same(dataset: str | None, own: str) -> bool:
    """Whether a data set is the run's own, which needs not be named."""
    if dataset is None or dataset == own:
        return True
    paths = pathlib.Path(dataset).expanduser(), pathlib.Path(own).expanduser()
    return all(path.exists() for path in paths) and os.path.samefile(*paths)  # noqa: PTH121


def _has_moved(run: runs.Run, dataset: str) -> bool:
    """Whether a data set is the run's own, at another place.

    What cannot be read as the run's own data is other data; if something is wrong with it, that
    is said when it is opened as such.
    """
    try:
        run.splits(dataset)
    except UserError:
        return False
    return True


def _overlap(run: runs.Run, found: HeldOut) -> list[str]:
    """Says if images to measure on were trained on, as far as that can be told."""
    from lightnets.data import unlabelled
    from lightnets.data.held_out import seen_in_training

    try:
        trained = [run.splits().train_source]
        if place := run.config.data.unlabelled:
            trained.append(unlabelled.listed(place).source)
    except UserError as error:
        return [f"Whether the run was trained on some of them cannot be told: {error}"]
    seen = seen_in_training(trained, found.sources.values())
    return [f"The run was trained on {seen} of these images."] if seen else []


def _print(done: _Measured) -> None:
    from lightnets.evaluation import scoring

    results, found, task = done.results, done.found, done.task
    splits, rows = results["splits"], results[task.table]
    named = f" ({', '.join(splits)})" if found.dataset.divided else ""
    console.line(f"{results['target']}: {count(results['images'], 'held-out image')}{named}")
    numbers = scoring.named(results)
    width = max(16, *(len(key) + 2 for key in numbers))
    for key, value in numbers.items():
        console.line(f"  {key:<{width}}{value:.4f}")
    if len(splits) > 1:
        console.table(
            ("split", task.main.replace("_", " "), "loss", "images"),
            [
                [name, f"{own[task.main]:.4f}", f"{own['loss']:.4f}", own["images"]]
                for name, own in splits.items()
            ],
        )
    console.table(tuple(key.replace("_", " ") for key in rows[0]), task.cells(rows))
    if results["missing_classes"]:
        console.line(f"No images of: {some(results['missing_classes'])}")
    for line in rejection.lines(results["rejection"]) if "rejection" in results else ():
        console.line(line)
    for name, reason in found.left_out.items():
        console.line(f"Not measured: {name} ({reason})")
    for note in results["notes"]:
        console.line(note)
    console.line(found.dataset.describe())
