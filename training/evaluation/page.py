"""The report of a run: one page for people, which needs no other file."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lightnets.intervals import interval
from lightnets.config.keys import DistillationConfig
from lightnets.evaluation import activation, advice, features, rejection, report, suspects
from lightnets.evaluation.features import Known
from lightnets.evaluation.scoring import calibration, largest_class, mistakes
from lightnets.support import markup
from lightnets.support.progress import duration
from lightnets.support.words import command, count

if TYPE_CHECKING:
    import keras

    from lightnets.data import Splits
    from lightnets.evaluation.scoring import Predictions

NAME = "report.html"
# Pictures of each kind on the page, 3 KB each, and the length of their sides in pixels.
MISTAKES, SUSPECTS, SEEN, SIDE = 36, 24, 24, 128
# Classes whose confusions fit into a table, each with its own mistake to look at.
MATRIX = 12
# Held-out images from which calibration says something.
CALIBRATED = 200


def name_of(split: str) -> str:
    """Returns the file name of the page on a split, whatever that is called."""
    return "report-" + re.sub(r"[^\w.-]+", "_", split) + ".html"


@report.only_a_picture
def write(
    splits: Splits,
    results: Mapping[str, Any],
    found: Predictions,
    model: keras.Model | None,
    split: str | None,
    path: pathlib.Path,
) -> None:
    """Writes the page beside the pictures of the run, and the labels to check.

    Args:
        splits: Data and configuration of the run.
        results: What `results.json` holds; the rows of `report.per_class` as `per_class`; if known
            what `environment.json` holds as `environment`, and milliseconds an image as
            `one_image` and `in_batch`.
        found: Of the held-out images, by the best weights.
        model: Of these weights; None leaves out what only it can show.
        split: Name of the held-out images, if they are not those which chose the best epoch. The
            pictures and the list of labels to check are of the latter, and stay as they are.
        path: To write, in the folder of the run.
    """
    run, (true, probabilities, labels) = path.parent, found
    known = None if model is None else _known(model, splits)
    said = probabilities.argmax(-1)
    shown = _shown(true, probabilities)
    doubtful = list(suspects.of_run(splits, true, probabilities, known))
    pictures = {"Loss, accuracy and learning rate by epoch": "curves.png"}
    if split is None:
        suspects.write(doubtful, run)
        pictures["Confusion matrix"] = "confusion_matrix.png"
    else:
        doubtful = [row for row in doubtful if row.source is splits.eval_source]
    headline = _headline(results, true, labels, chose=split is None and results["epochs"] > 1)
    sections = [
        markup.section(
            "Mistakes, the most certain first",
            *_mistakes(splits, found, shown, model, known),
        ),
        markup.section("Labels to check", *_suspects(splits, doubtful)),
        *drawings(run, pictures),
        markup.section("Mistakes by class", *_confusions(labels, true, said, shown)),
        markup.section(
            "Classes, the worst first", _classes(results["per_class"], true, shown, said)
        ),
        markup.section("Calibration", *_calibration(true, probabilities)),
        markup.section("Images of none of the classes", *_rejection(results)),
    ]
    whole(splits, results, headline, sections, split, path)


def whole(
    splits: Splits,
    results: Mapping[str, Any],
    headline: Iterable[str],
    sections: Iterable[str],
    split: str | None,
    path: pathlib.Path,
) -> None:
    """Writes a page of what all tasks share and, as HTML, what is of one; see `write`."""
    config = splits.config
    facts = [*_facts(splits, results), *_environment(results)]
    parts = [
        *headline,
        markup.lines(advice.in_place(results["advice"], path.parent, config.data.dataset)),
        markup.section("What was trained", markup.table(("", ""), facts)),
        *sections,
        markup.section("What the network saw in training", _seen(splits)),
        markup.section("Commands", f"<pre>{markup.text(_commands(path.parent))}</pre>"),
    ]
    title = f"{config.model.label} on {pathlib.Path(config.data.dataset).name}"
    markup.write(path, title if split is None else f"{title}, {split}", parts)


def _headline(
    results: Mapping[str, Any], true: np.ndarray, labels: Sequence[str], *, chose: bool
) -> Iterator[str]:
    accuracy, images = results["accuracy"], results["images"]
    low, high = interval(round(accuracy * images), images)
    largest, chance = largest_class(true)
    yield (
        f"<p>Accuracy on {count(images, 'held-out image')}: <b>{accuracy:.4f}</b>, which for other "
        f"images like these means {low:.3f} to {high:.3f} (95 % interval).</p>"
    )
    chosen = "These images also chose the best epoch: the number is a little too high."
    others = "These images did not choose the epoch."
    yield (
        f"<p>To guess would give {1 / len(labels):.3f}, to answer "
        f"{markup.text(labels[largest])} always {chance:.3f}. "
        f"{chosen if chose else others}</p>"
    )


def _facts(splits: Splits, results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    config = splits.config
    model, train = config.model, config.train
    return [
        ("Data", config.data.dataset),
        ("Images", f"{splits.train_examples} to train on, {splits.eval_examples} held out"),
        *([("Without labels", config.data.unlabelled)] if config.data.unlabelled else ()),
        (splits.noun, str(len(splits.labels))),
        ("Network", f"{model.label}, images of {' x '.join(map(str, model.sides))} pixels"),
        ("Started from", model.weights or f"{'its own' if model.foreign else 'random'} weights"),
        *_teacher(config.distillation),
        ("Recipe", config.recipe or "none"),
        ("Epochs", f"{results['epochs']}, {_best(results['best_epoch'])}"),
        *(
            (f"Extended after {after} epochs", f"a new schedule from a rate of {rate:g}")
            for after, rate in config.optimizer.extensions.items()
        ),
        ("Batch", f"{train.batch_size}, seed {train.seed}"),
        *(
            (what, f"{results[key]:.2f} ms")
            for what, key in (("One image", "one_image"), ("An image in a batch of 32", "in_batch"))
            if key in results
        ),
    ]


def _best(epoch: int | None) -> str:
    return "none of them better than before" if epoch == 0 else f"the best one {epoch}"


def _teacher(config: DistillationConfig) -> Iterator[tuple[str, str]]:
    if config.teacher is not None:
        weight, temperature = config.student_loss_weight, config.temperature
        yield "Teacher", f"{config.teacher}, temperature {temperature:g}, labels weigh {weight:g}"


def _environment(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what a run was trained by."""
    if not (about := results.get("environment")):
        return
    if "seconds" in about:
        yield "Time", f"{duration(about['seconds'])}, evaluation included"
    yield "Devices", f"{', '.join(about['devices'])}; {count(about['cores'], 'core')}"
    yield "Platform", f"{about['platform']}, Python {about['python']}"
    yield "Versions", ", ".join(" ".join(pair) for pair in about["versions"].items())


def _known(model: keras.Model, splits: Splits) -> Known | None:
    """Returns training images with their features; None where they cannot be read here."""
    if splits.config.data.data_service:
        return None
    return features.extract(model, splits, features.sample(splits.train_source))


def _shown(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the places of mistakes to show, the most certain first.

    Those of which there is no other of their kind come with them.
    """
    said, classes = probabilities.argmax(-1), probabilities.shape[1]
    wrong = mistakes(true, probabilities)
    kinds = true[wrong] * classes + said[wrong]
    first = np.unique(kinds, return_index=True)[1] if classes <= MATRIX else []
    return wrong[np.union1d(np.arange(min(MISTAKES, len(wrong))), first).astype(int)]


def _mistakes(
    splits: Splits,
    found: Predictions,
    shown: np.ndarray,
    model: keras.Model | None,
    known: Known | None,
) -> Iterator[str]:
    """Yields each mistake beside what the network looked at and what it knew most like it."""
    true, probabilities, labels = found
    said = probabilities.argmax(-1)
    wrong = count(int(np.sum(said != true)), "mistake")
    if not len(shown):
        yield f"<p>{wrong}.</p>"
        return
    images = list(splits.images(splits.eval_source, shown))
    columns = [images]
    captions = [
        [
            f"{labels[true[place]]}, taken for {labels[said[place]]} "
            f"({probabilities[place, said[place]]:.2f})",
            _below(splits, splits.eval_source.name(int(place))),
        ]
        for place in shown
    ]
    told = ""
    if model is not None and (maps := activation.maps(model)):
        looked_at = maps(np.stack(images), said[shown])
        columns.append([*map(activation.overlay, images, looked_at)])
        told = "Red: what spoke for the answer. "
    if known is not None:
        places = features.nearest(known.look(np.stack(images)), known.features)[:, 0]
        columns.append(list(splits.images(known.source, places)))
        classes = known.source.read_labels()
        for caption, place in zip(captions, places, strict=True):
            name = _below(splits, known.source.name(int(place)))
            caption.append(f"most like it in training: {labels[classes[place]]}, {name}")
        told += "To the right: the training image most like it, to the network."
    yield f"<p>{wrong}; {len(shown)} shown. {told}</p>"
    pictures = [_jpeg(np.concatenate(row, axis=1)) for row in zip(*columns, strict=True)]
    places = [_place(true[place], said[place]) for place in shown]
    yield markup.figures(zip(pictures, captions, strict=True), places)


def _place(true: Any, said: Any) -> str:
    return f"mistake-{true}-{said}"


def _suspects(splits: Splits, rows: Sequence[suspects.Row]) -> Iterator[str]:
    if not rows:
        return
    yield (
        f"<p>{count(len(rows), 'image')} that look like another class than their own; the first "
        f"{min(len(rows), SUSPECTS)} shown. <code>{suspects.TABLE}</code> has all with their "
        f"classes, <code>{suspects.LIST}</code> the files, one a line as "
        "<code>lightnets data check --fix-list</code> writes them. Look at each before you move "
        "or remove it.</p>"
    )
    shown, images = rows[:SUSPECTS], {}
    for source in {row.split: row.source for row in shown}.values():
        own = [row for row in shown if row.source is source]
        read = splits.images(source, [row.place for row in own])
        images |= {row[:2]: image for row, image in zip(own, read, strict=True)}
    pictures = [
        (
            _jpeg(images[row[:2]]),
            [f"{row.label}, looks like {row.likely}", f"{_below(splits, row.name)} ({row.split})"],
        )
        for row in shown
    ]
    yield markup.figures(pictures)


def _confusions(
    labels: Sequence[str], true: np.ndarray, said: np.ndarray, shown: np.ndarray
) -> Iterator[str]:
    """Yields the matrix of few classes, in which each kind of mistake leads to one."""
    if len(labels) > MATRIX or not len(shown):
        return
    numbers = range(len(labels))
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (true, said), 1)

    def cell(row: int, column: int) -> Any:
        if row == column or not counts[row, column]:
            return int(counts[row, column]) or ""
        return markup.Link(counts[row, column], _place(row, column))

    yield "<p>True classes below each other, answers beside each other.</p>"
    yield markup.table(
        ("", *labels),
        [[labels[row], *(cell(row, column) for column in numbers)] for row in numbers],
    )


def _classes(
    rows: Sequence[Mapping[str, Any]], true: np.ndarray, shown: np.ndarray, said: np.ndarray
) -> str:
    columns = ("precision", "recall", "f1", "images")
    first = {int(true[place]): _place(true[place], said[place]) for place in shown[::-1]}
    cells = [
        [
            markup.Link(row["class"], first[number]) if number in first else row["class"],
            *(row[key] for key in columns),
        ]
        for number, row in sorted(enumerate(rows), key=lambda pair: pair[1]["f1"])
    ]
    return markup.table(("class", *columns), cells)


def _calibration(true: np.ndarray, probabilities: np.ndarray) -> Iterator[str]:
    if len(true) < CALIBRATED:
        return
    error, rows = calibration(true, probabilities)
    yield (
        f"<p>Probabilities are {100 * error:.1f} points from the share of right answers "
        "(expected calibration error). Where the share is lower, the network is too certain.</p>"
    )
    yield markup.table(("mean probability", "right", "images"), rows)


def _rejection(results: Mapping[str, Any]) -> Iterator[str]:
    if about := results.get("rejection"):
        yield from (f"<p>{markup.text(line)}</p>" for line in rejection.lines(about))


def drawings(run: pathlib.Path, names: Mapping[str, str]) -> Iterator[str]:
    """Yields a section for each of these pictures of a run that was drawn, by its heading."""
    for what, name in names.items():
        if (file := run / name).is_file():
            yield markup.section(what, markup.drawn(file.read_bytes(), what))


def pictures(splits: Splits, places: np.ndarray, captions: Sequence[str]) -> str:
    """Returns held-out images, each above a line and its file."""
    images = splits.images(splits.eval_source, places)
    names = [_below(splits, splits.eval_source.name(int(place))) for place in places]
    lines = zip(captions, names, strict=True)
    return markup.figures((_jpeg(image), own) for image, own in zip(images, lines, strict=True))


def _below(splits: Splits, name: str) -> str:
    """Returns the name of a file as it is below the folder of the data set."""
    path, folder = pathlib.Path(name), pathlib.Path(splits.config.data.dataset)
    folder = folder.parent if folder.is_file() else folder  # of a list
    below = path.is_absolute() and path.is_relative_to(folder)
    return str(path.relative_to(folder)) if below else name


def _seen(splits: Splits) -> str:
    """Returns training images as the network sees them: cut, coloured and mixed by chance."""
    if splits.config.data.data_service:
        return ""
    size = min(splits.config.train.batch_size, splits.train_examples)  # as a run has it
    labelled = dataclasses.replace(splits, unlabelled=None)
    batch = next(iter(labelled.train(global_batch=size)))
    images, labels, _ = (part.numpy()[:SEEN] for part in batch)
    names = map(splits.words, labels)
    return markup.figures((_jpeg(image), [name]) for image, name in zip(images, names, strict=True))


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE * picture.width // picture.height, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def _commands(run: pathlib.Path) -> str:
    served = "served"
    return "\n".join(
        (
            command("evaluate", run),
            command("predict", run, "IMAGE"),
            command("export", run, "--out", served),
            command("serve", served),
            f"{command('train', '--config', run / 'config.yaml')} --out NEW  # the same run again",
        )
    )
