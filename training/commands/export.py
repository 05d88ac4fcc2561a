"""`lightnets export`: a trained run becomes a bundle that TensorFlow Serving runs."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

from keras_lightnets.serving import bundle, runtimes
from training import config as configs
from training import console
from training import run as runs
from training.errors import UsageError, UserError
from training.words import command
from training.writing import check_folder

if TYPE_CHECKING:
    import numpy as np

    from keras_lightnets.serving.gate import HeldOut
    from training.data import Splits

HELP = "write a trained run as a versioned SavedModel for TensorFlow Serving"

# Most sets held out are smaller; of larger ones as many are enough to find a difference.
GATE_IMAGES = 5000


# Images of the training split from which int8 learns the range of every tensor.
_REPRESENTATIVE = 128


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
    add("--version", metavar="N", help="default: one more than the newest")
    add("--weights", choices=("best", "last"), default="best", help="default: %(default)s")
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="of the arithmetic")
    add("--whole-batches", action="store_true", help="for a GPU: not in parts that fit the cache")
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
        "--gate-images",
        default=str(GATE_IMAGES),
        metavar="N|all",
        help="held-out images compared with the Keras model, spread over the split; 224-pixel ones "
        "take 150 KB each (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Exports and shows the comparison with the Keras model."""
    if args.top_k < 1:
        raise UsageError(f"--top-k must be at least 1. Received: {args.top_k}")
    if not 0 <= args.max_accuracy_drop <= 1:
        raise UsageError(f"--max-accuracy-drop is a share. Received: {args.max_accuracy_drop}")
    limit = _gate_images(args.gate_images)
    args.version = _version(args.version)
    try:
        formats = runtimes.parse_formats(args.formats)
    except ValueError as error:
        raise UsageError(str(error)) from None
    runs.check_is_run(args.run)
    check_folder(args.out, "--out")
    from keras_lightnets.serving.errors import ExportError

    source = runs.Run.open(args.run)
    source.weights(args.weights)
    try:
        runtimes.check_installed(formats)
        written = _export(args, formats, source, limit)
    except ExportError as error:
        raise UserError(str(error)) from None
    _print(written)
    if runtimes.TF_SERVING in formats:
        console.line(f"Next: {command('serve', args.out)}")
    return 0


def _gate_images(text: str) -> int | None:
    """Reads `--gate-images`; None: all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--gate-images is a number from 1 on, or all. Received: {text}")
    return int(text)


def _version(text: str | None) -> int | None:
    """Reads `--version`; None: the next one."""
    if text is None:
        return None
    # Lengths first: Python converts no number of more than 4300 digits.
    if re.fullmatch("[0-9]{1,19}", text) and 1 <= int(text) <= bundle.MAX_VERSION:
        return int(text)
    raise UsageError(
        f"--version is a whole number from 1 to {bundle.MAX_VERSION}. Received: {text[:40]}"
    )


def portable(value: Any) -> Any:
    """Returns a configuration in which the folders of this machine are left out of paths."""
    if isinstance(value, dict):
        return {key: portable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [portable(each) for each in value]
    if isinstance(value, str) and pathlib.PurePath(value).is_absolute():
        return pathlib.PurePath(value).name
    return value


def _export(
    args: argparse.Namespace, formats: list[str], source: runs.Run, limit: int | None
) -> pathlib.Path:
    """Writes everything asked for and returns the new directory."""
    from keras_lightnets.serving import export
    from keras_lightnets.serving.formats import DIRECTORY

    splits, model = source.splits(), source.model(args.weights)
    name = model.name if args.name is None else args.name
    # What needs no image is checked before all of them are read.
    bundle.check_name(name)
    model_dir = args.out / name
    bundle.choose_version([model_dir, model_dir / DIRECTORY], args.version)
    bundle.check_same_classes(model_dir, source.labels)
    others = [key for key in formats if key != runtimes.TF_SERVING]
    held_out = held_out_images(splits, limit)
    console.line(f"Comparing on {len(held_out.images)} of {splits.eval_examples} held-out images")
    console.line(splits.dataset.describe())
    given: dict[str, Any] = {
        "name": name,
        "transform": source.transform,
        "held_out": held_out,
        "options": export.ExportOptions(
            input_dtype=args.input_dtype,
            top_k=args.top_k,
            features=args.features,
            precision=args.precision,
            whole_batches=args.whole_batches,
            formats=others,
            representative=representative_images(splits) if "litert-int8" in others else None,
            max_accuracy_drop=args.max_accuracy_drop,
        ),
    }
    about = {"name": args.run.resolve().name, "config": portable(configs.to_dict(source.config))}
    if runtimes.TF_SERVING not in formats:
        return export.export_formats(model, args.out, source.labels, args.version, **given)
    return export.export_saved_model(
        model,
        args.out,
        source.labels,
        args.version,
        metadata={"run": about},
        progress=console.line,
        **given,
    )


def _print(version: pathlib.Path) -> None:
    """Shows where the export is and how it compared with the Keras model."""
    rows = {}
    parity = version / bundle.EXTRA / bundle.PARITY
    if parity.is_file():
        rows = json.loads(parity.read_text())["signatures"]
    for folder in (version, version / bundle.EXTRA):
        if (folder / bundle.METADATA).is_file():
            rows |= json.loads((folder / bundle.METADATA).read_text()).get("formats", {})
    console.table(
        ("compared with Keras", "images", "same top-1", "largest difference", "accuracy", "Keras"),
        [
            [
                name,
                row["images"],
                round(row["images"] * row["top1_agreement"]),
                f"{row['max_difference']:.1e}",
                *(f"{row[key]:.4f}" for key in ("accuracy", "keras_accuracy")),
            ]
            for name, row in rows.items()
        ],
    )
    console.line(f"Wrote {version}")


def representative_images(splits: Splits, count: int = _REPRESENTATIVE) -> np.ndarray:
    """Returns images of the training split, uint8, prepared as those to classify will be."""
    import numpy as np

    from training.data.pipeline import evaluation_pixels

    source = splits.train_source
    batch = min(count, source.count)
    references = source.train_references(
        0, seed=splits.config.train.seed, global_batch=batch, shard=0, shards=1
    )

    def load(reference: Any, key: Any) -> Any:
        return evaluation_pixels(source.open(reference)[0], splits.transform, source.decoded)

    return np.stack(list(references.unbatch().take(batch).map(load).as_numpy_iterator()))


def held_out_images(splits: Splits, limit: int | None) -> HeldOut:
    """Collects held-out images with their classes and the files they come from.

    Args:
        splits: Of the run.
        limit: At most this many, spread over the whole split; None: all.
    """
    import numpy as np
    import tensorflow as tf

    from keras_lightnets.preprocessing import evaluation_image
    from keras_lightnets.serving.gate import HeldOut
    from training.data import pillow

    total = splits.eval_examples
    if not total:
        raise UserError("The run's held-out split is empty: nothing to check an export with.")
    source = splits.eval_source
    if limit is not None and limit < total:
        # Sources are often sorted by class: the first N would be of the first few.
        source = source.subset(np.linspace(0, total - 1, limit).astype(np.int64))

    def load(reference: Any, weight: Any) -> Any:
        contents, label = source.open(reference)
        # Pixels that never were a file become one: PNG keeps every bit.
        file = tf.io.encode_png(contents) if source.decoded else contents
        return evaluation_image(file, splits.transform, pillow.png), label, file, weight

    examples = source.references(32).unbatch().map(load, num_parallel_calls=tf.data.AUTOTUNE)
    rows = [row[:3] for row in examples.as_numpy_iterator() if row[3] > 0]
    images, labels, files = zip(*rows, strict=True)
    return HeldOut(np.stack(images), np.array(labels), tuple(map(pillow.portable, files)))
