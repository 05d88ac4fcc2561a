"""The report of a run: one page for people, which needs no other file."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightnets.config.keys import Config
from lightnets.evaluation import report
from lightnets.evaluation.scoring import interval, largest_class
from lightnets.support import markup
from lightnets.support.words import command, count

if TYPE_CHECKING:
    from lightnets.data import Splits

NAME = "report.html"
# Pictures of each kind on the page, 3 KB each, and the length of their sides in pixels.
MISTAKES, SEEN, SIDE = 36, 24, 128


@report.only_a_picture
def write(
    config: Config,
    splits: Splits,
    results: Mapping[str, Any],
    true: np.ndarray,
    probabilities: np.ndarray,
    path: pathlib.Path,
) -> None:
    """Writes the page beside the pictures of the run.

    Args:
        config: Of the run.
        splits: Its data.
        results: What `results.json` holds, and the rows of `report.per_class` as `per_class`.
        true: Class numbers of the held-out images, `(images,)`.
        probabilities: `(images, classes)`, of the best weights.
        path: To write, in the folder of the run.
    """
    run, labels = path.parent, splits.labels
    rows = sorted(results["per_class"], key=lambda row: row["f1"])
    columns = ("class", "precision", "recall", "f1", "images")
    pictures = {
        "Loss, accuracy and learning rate by epoch": run / "curves.png",
        "Confusion matrix": run / "confusion_matrix.png",
    }
    parts = [
        *_headline(results, true, labels),
        markup.lines(results["advice"]),
        markup.section("What was trained", markup.table(("", ""), _facts(config, splits, results))),
        markup.section(
            "Mistakes, the most certain first", *_mistakes(config, splits, true, probabilities)
        ),
        *(
            markup.section(what, markup.drawn(file.read_bytes(), what))
            for what, file in pictures.items()
            if file.is_file()
        ),
        markup.section(
            "Classes, the worst first",
            markup.table(columns, [[row[key] for key in columns] for row in rows]),
        ),
        markup.section("What the network saw in training", _seen(config, splits)),
        markup.section("Commands", f"<pre>{markup.text(_commands(run))}</pre>"),
    ]
    markup.write(path, f"{config.model.name} on {pathlib.Path(config.data.dataset).name}", parts)


def _headline(results: Mapping[str, Any], true: np.ndarray, labels: Sequence[str]) -> Iterator[str]:
    accuracy, images = results["accuracy"], results["images"]
    low, high = interval(round(accuracy * images), images)
    largest, chance = largest_class(true)
    yield (
        f"<p>Accuracy on {count(images, 'held-out image')}: <b>{accuracy:.4f}</b>, which for other "
        f"images like these means {low:.3f} to {high:.3f} (95 % interval).</p>"
    )
    chose = "These images also chose the best epoch: the number is a little too high."
    yield (
        f"<p>To guess would give {1 / len(labels):.3f}, to answer "
        f"{markup.text(labels[largest])} always {chance:.3f}. "
        f"{chose if results['epochs'] > 1 else ''}</p>"
    )


def _facts(config: Config, splits: Splits, results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    model, train = config.model, config.train
    return [
        ("Data", config.data.dataset),
        ("Images", f"{splits.train_examples} to train on, {splits.eval_examples} held out"),
        ("Classes", str(len(splits.labels))),
        ("Network", f"{model.name}, images of {model.image_size} x {model.image_size} pixels"),
        ("Started from", model.weights or "random weights"),
        ("Recipe", config.recipe),
        ("Epochs", f"{results['epochs']}, the best one {results['best_epoch']}"),
        ("Batch", f"{train.batch_size}, seed {train.seed}"),
    ]


def _mistakes(
    config: Config, splits: Splits, true: np.ndarray, probabilities: np.ndarray
) -> Iterator[str]:
    said, labels = probabilities.argmax(-1), splits.labels
    wrong = np.flatnonzero(said != true)
    wrong = wrong[np.argsort(-probabilities[wrong, said[wrong]], kind="stable")]
    shown = wrong[:MISTAKES]
    yield f"<p>{count(len(wrong), 'mistake')}; {len(shown)} shown.</p>"
    yield markup.figures(
        (
            _jpeg(image),
            (
                f"{labels[true[place]]}, taken for {labels[said[place]]} "
                f"({probabilities[place, said[place]]:.2f})",
                _below(config.data.dataset, splits.eval_source.name(int(place))),
            ),
        )
        for place, image in zip(shown, splits.held_out_images(shown), strict=True)
    )


def _below(dataset: str, name: str) -> str:
    """Returns the name of a file as it is below the folder of the data set."""
    path = pathlib.Path(name)
    below = path.is_absolute() and path.is_relative_to(dataset)
    return str(path.relative_to(dataset)) if below else name


def _seen(config: Config, splits: Splits) -> str:
    """Returns training images as the network sees them: cut, coloured and mixed by chance."""
    if config.data.data_service:
        return ""
    batch = next(iter(splits.train(global_batch=config.train.batch_size)))
    images, labels, _ = (part.numpy()[:SEEN] for part in batch)
    names = [splits.labels[label] for label in labels.argmax(-1)]
    return markup.figures((_jpeg(image), [name]) for image, name in zip(images, names, strict=True))


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
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
