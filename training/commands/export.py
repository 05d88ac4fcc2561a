"""`lightnets export`: a trained run becomes a bundle that TensorFlow Serving runs."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from typing import TYPE_CHECKING

from keras_lightnets.serving import runtimes
from training import config as configs
from training import run as runs
from training.errors import UsageError, UserError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_lightnets.serving.gate import HeldOut
    from training.data import Splits

HELP = "write a trained run as a versioned SavedModel for TensorFlow Serving"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add = parser.add_argument
    add("run", type=pathlib.Path, metavar="RUN", help="directory of `lightnets train`")
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="where the models are")
    add(
        "--formats",
        default=runtimes.TF_SERVING,
        metavar="LIST",
        help=f"of {', '.join(runtimes.FORMATS)} (default: %(default)s)",
    )
    add("--name", help="of the model in URLs (default: the network's)")
    add("--version", type=int, metavar="N", help="default: one more than the newest")
    add("--weights", choices=("best", "last"), default="best", help="default: %(default)s")
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="of the arithmetic")
    add("--input-dtype", choices=("uint8", "float32"), default="uint8", help="of the image tensor")
    add("--top-k", type=int, default=5, metavar="K", help="named classes in an answer")
    add("--features", action="store_true", help="add a signature for the pooled features")
    add(
        "--max-accuracy-drop",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="what rounded weights may cost on the held-out images (default: %(default)s)",
    )
    add(
        "--held-out-images",
        type=int,
        default=1000,
        metavar="N",
        help="images compared with the Keras model; 0: all (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Exports and says what was checked."""
    if args.top_k < 1:
        raise UsageError(f"--top-k must be at least 1. Received: {args.top_k}")
    if not 0 <= args.max_accuracy_drop <= 1:
        raise UsageError(f"--max-accuracy-drop is a share. Received: {args.max_accuracy_drop}")
    if args.held_out_images < 0:
        raise UsageError(f"--held-out-images is 0 or more. Received: {args.held_out_images}")
    try:
        formats = runtimes.parse_formats(args.formats)
    except ValueError as error:
        raise UsageError(str(error)) from None
    runs.check_is_run(args.run)
    from keras_lightnets.serving.errors import ExportError

    source = runs.Run.open(args.run)
    source.weights(args.weights)
    try:
        runtimes.check_installed(formats)
        written = _export(args, formats, source)
    except ExportError as error:
        raise UserError(str(error)) from None
    for path in written:
        print(f"Wrote {path}")
    return 0


def _export(args: argparse.Namespace, formats: list[str], source: runs.Run) -> list[pathlib.Path]:
    """Converts first, publishes when everything is there; returns the new directories."""
    from keras_lightnets.serving import bundle
    from keras_lightnets.serving.formats import DIRECTORY

    splits, model = source.splits(), source.model(args.weights)
    name = model.name if args.name is None else args.name
    bundle.check_name(name)
    model_dir = args.out / name
    others = [key for key in formats if key != runtimes.TF_SERVING]
    with contextlib.ExitStack() as stack:
        version = bundle.choose_version([model_dir, model_dir / DIRECTORY], args.version)
        bundle.check_same_classes(model_dir, source.labels)
        held_out = held_out_images(splits, args.held_out_images)
        if others:
            staged = stack.enter_context(bundle.staging(model_dir / DIRECTORY))
            _convert(args, others, source, splits, model, held_out, staged)
        written = []
        if runtimes.TF_SERVING in formats:
            written.append(_saved_model(args, source, model, name, version, held_out))
        if others:
            bundle.publish(staged, model_dir / DIRECTORY / str(version))
            written.append(model_dir / DIRECTORY / str(version))
    return written


def _saved_model(
    args: argparse.Namespace,
    source: runs.Run,
    model: keras.Model,
    name: str,
    version: int,
    held_out: HeldOut,
) -> pathlib.Path:
    from keras_lightnets.serving.export import export_saved_model

    return export_saved_model(
        model,
        args.out,
        source.labels,
        version,
        name=name,
        transform=source.transform,
        input_dtype=args.input_dtype,
        precision=args.precision,
        top_k=args.top_k,
        features=args.features,
        held_out=held_out,
        max_accuracy_drop=args.max_accuracy_drop,
        metadata={"run": {"path": str(args.run), "config": configs.to_dict(source.config)}},
    )


def _convert(
    args: argparse.Namespace,
    formats: list[str],
    source: runs.Run,
    splits: Splits,
    model: keras.Model,
    held_out: HeldOut,
    directory: pathlib.Path,
) -> None:
    """Writes the formats of other runtimes into `directory`, with what they are."""
    from keras_lightnets.serving import bundle
    from keras_lightnets.serving.export import clear_errors
    from keras_lightnets.serving.formats import convert

    with clear_errors(args.out):
        report = convert(
            model,
            directory,
            formats,
            held_out,
            representative=representative_images(splits) if "litert-int8" in formats else None,
            max_accuracy_drop=args.max_accuracy_drop,
        )
        about = {"transform": source.transform.to_dict(), "formats": report}
        bundle.write_extra(directory, source.labels, about)


def representative_images(splits: Splits, count: int = 128, batch: int = 32) -> np.ndarray:
    """Returns images of the training split, as training sees them."""
    import numpy as np

    batch = min(batch, splits.train_examples)
    dataset = splits.train(0, global_batch=batch).take(-(-count // batch))
    return np.concatenate([np.asarray(images) for images, _, _ in dataset])[:count]


def held_out_images(splits: Splits, limit: int, batch: int = 32) -> HeldOut:
    """Collects evaluation images and their classes, spread over the whole split.

    Args:
        splits: Of the run.
        limit: At most this many; 0: all.
        batch: Images read at a time.
    """
    import numpy as np

    from keras_lightnets.serving.gate import HeldOut

    total = splits.eval_examples
    # Sources are often sorted by class: the first N would be of the first few.
    step = 1 if not limit else -(-total // limit)
    images, labels, seen = [], [], 0
    for pixels, targets, weights in splits.evaluation(batch, 0, 1):
        real = weights.numpy() > 0
        wanted = (np.arange(seen, seen + real.sum()) % step) == 0
        images.append(np.asarray(pixels)[real][wanted])
        labels.append(np.asarray(targets)[real][wanted].argmax(-1))
        seen += int(real.sum())
    if not seen:
        raise UserError("The run's held-out split is empty: nothing to check an export with.")
    return HeldOut(np.concatenate(images).astype("uint8"), np.concatenate(labels))
