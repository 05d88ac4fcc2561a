"""`--reject`: a rule for images of none of the classes, fitted to a run and measured."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightnets.config import tasks
from lightnets.support.errors import UsageError, UserError, told
from lightnets.support.words import count

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_lightnets.inference.rejection import Rejection
    from lightnets.data import Splits
    from lightnets.data.sources.stream import AnySource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the commands that fit a rule."""
    parser.add_argument(
        "--reject",
        type=float,
        metavar="COVERAGE",
        help="tell images of none of the classes apart, so that this share of other images stays "
        "known (0.95), and calibrate the probabilities; both on the run's held-out images",
    )
    parser.add_argument(
        "--unknown",
        type=pathlib.Path,
        metavar="FOLDER",
        help="pictures of none of the classes, to measure how many --reject finds",
    )


def check(args: argparse.Namespace) -> list[str]:
    """Returns the pictures of `--unknown`; checks what can be checked without a run.

    Raises:
        UserError: There is no such folder or no picture in it, or (UsageError) the flags are wrong.
    """
    if args.reject is not None and not 0 < args.reject < 1:
        raise UsageError(
            "--reject is the share of images that stay known, between 0 and 1, such as 0.95. "
            f"Received: {args.reject:g}"
        )
    if args.unknown is None:
        return []
    if args.reject is None:
        raise UsageError("--unknown measures what --reject finds: add --reject 0.95.")
    if not args.unknown.is_dir():
        raise UserError(f"--unknown: there is no folder {args.unknown}.")
    from lightnets.data.sources import listing

    found = listing.find_images(args.unknown)
    if not found.images:
        skipped = listing.counted(found.skipped)
        left_out = f" Left out: {skipped}." if skipped else ""
        raise UserError(f"--unknown: there is no picture in {args.unknown}.{left_out}")
    return found.images


def fit(
    model: keras.Model, splits: Splits, coverage: float, unknown: Sequence[str] = ()
) -> Rejection:
    """Returns the rule for a run, with what was measured on its held-out images in `about`.

    Training images have the features that are known, held-out ones give temperature and threshold.

    Args:
        model: From 0..255 images to probabilities.
        splits: Data of the run.
        coverage: The share of images of the classes that stay known.
        unknown: Paths of pictures of none of the classes.

    Raises:
        UserError: There are too few held-out images, a picture cannot be read, or the model has
            no classifier on pooled features.
    """
    import numpy as np

    from keras_lightnets.errors import ExportError
    from keras_lightnets.inference import rejection as rules
    from lightnets.data import check as check_data
    from lightnets.data.sources.part import file_source
    from lightnets.evaluation import features

    tasks.check(splits.config.train.task, "--reject")
    least = rules.least_images(coverage)
    if splits.eval_examples < least:
        raise UserError(
            f"--reject {coverage:g} needs at least {least} held-out images to set a threshold by. "
            f"The run has {splits.eval_examples}."
        )
    with told(ExportError):
        network = _network(model)
    classes = model.output_shape[-1]

    def look(source: AnySource, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns features and probabilities."""
        batches = dataclasses.replace(splits, eval_source=source).evaluation(features.BATCH)
        with check_data.explained(source, splits.config.data.dataset):
            rows = features.through(network, batches, source.count, what)
        return rows[:, :-classes], rows[:, -classes:]

    train = features.sample(splits.train_source)
    known, _ = look(train, "Training images")
    found, probabilities = look(splits.eval_source, "Held-out images")
    true = splits.eval_source.read_labels()
    rule = rules.fit(known, train.read_labels(), found, true, probabilities, coverage)
    far = np.zeros(0)
    if unknown:
        others = file_source(list(unknown), np.zeros(len(unknown), np.int64))
        far = rule.distances(look(others, "Unknown images")[0])
    about = _measured(rule, true, probabilities, rule.distances(found), far)
    return dataclasses.replace(rule, about={"coverage": coverage, **about})


def _measured(
    rule: Rejection, true: np.ndarray, probabilities: np.ndarray, near: np.ndarray, far: np.ndarray
) -> dict[str, Any]:
    """Returns numbers of a rule; `near` and `far` are distances of held-out and unknown images."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from lightnets.evaluation.scoring import calibration

    about: dict[str, Any] = {
        "temperature": rule.temperature,
        "threshold": rule.threshold,
        "held_out_images": len(true),
        "calibration_error": calibration(true, rule.calibrated(probabilities))[0],
        "calibration_error_before": calibration(true, probabilities)[0],
    }
    if len(far):
        is_far = np.arange(len(near) + len(far)) >= len(near)
        about |= {
            "unknown_images": len(far),
            "unknown_rejected": float(np.mean(far >= rule.threshold)),
            "auroc": float(roc_auc_score(is_far, np.concatenate([near, far]))),
        }
    return about


def lines(about: Mapping[str, Any]) -> Iterator[str]:
    """Yields for a person what `fit` measured."""
    yield (
        f"About {about['coverage']:.1%} of images of the classes stay known: the threshold is set "
        f"on {count(about['held_out_images'], 'held-out image')}."
    )
    yield (
        f"Temperature {about['temperature']:.3f}: expected calibration error "
        f"{about['calibration_error']:.4f}, {about['calibration_error_before']:.4f} without."
    )
    if "auroc" in about:
        yield (
            f"Of {count(about['unknown_images'], 'image')} of none of the classes "
            f"{about['unknown_rejected']:.1%} are rejected; AUROC {about['auroc']:.4f}."
        )


def _network(model: keras.Model) -> keras.Model:
    """Returns a network that gives features and probabilities side by side."""
    import keras

    from keras_lightnets.inference.function import features_model

    outputs = [features_model(model).outputs[0], model.outputs[0]]
    return keras.Model(model.inputs[0], keras.layers.Concatenate(dtype="float32")(outputs))
