"""`lightnets export`: a trained run becomes a bundle that TensorFlow Serving runs."""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

from keras_lightnets.export import bundle, runtimes
from lightnets.config import keys as configs
from lightnets.config.tasks import TASKS
from lightnets.evaluation import rejection
from lightnets.run import directory as runs
from lightnets.run import networks
from lightnets.support import arguments, console
from lightnets.support.errors import UsageError, UserError, told
from lightnets.support.words import command
from lightnets.support.writing import check_folder

if TYPE_CHECKING:
    import numpy as np

    from keras_lightnets.export.parity import HeldOut
    from keras_lightnets.inference.rejection import Rejection
    from lightnets.data import Splits


# Most sets held out are smaller; of larger ones as many are enough to find a difference.
GATE_IMAGES = 5000


# Images of the training split from which int8 learns the range of every tensor.
_REPRESENTATIVE = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    add = parser.add_argument
    add(
        "run",
        nargs="?",
        type=pathlib.Path,
        metavar="RUN",
        help="directory of `lightnets train`, .keras or published weight file",
    )
    networks.add_arguments(parser, of_run="best|last")
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="where the models are")
    add(
        "--formats",
        default=runtimes.TF_SERVING,
        metavar="LIST",
        help=f"of {', '.join(runtimes.FORMATS)}, or all: what is possible of them but web "
        "(default: %(default)s)",
    )
    add("--table", action="store_true", help="show size and time for one image of each format")
    add("--name", help="of the model in URLs (default: the network's)")
    version = arguments.whole(1, bundle.MAX_VERSION)
    add("--version", type=version, metavar="N", help="default: one more than the newest")
    add("--dataset", metavar="PLACE", help="where the data of the run is now, if it has moved")
    precisions = ("float32", "bfloat16", "int8")
    add("--precision", choices=precisions, default="float32", help="of the arithmetic")
    add("--gpu", action="store_true", help="for servers with a GPU, which their files then ask for")
    add("--input-dtype", choices=("uint8", "float32"), default="uint8", help="of the image tensor")
    named = "named classes in an answer"
    add("--top-k", type=arguments.whole(1), default=5, metavar="K", help=named)
    add("--features", action="store_true", help="add a signature for the pooled features")
    rejection.add_arguments(parser)
    add(
        "--max-accuracy-drop",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="what rounded weights may cost on the held-out images",
    )
    add(
        "--equalize",
        action="store_true",
        help="for int8: make channels equally large and correct biases first",
    )
    add(
        "--gate-images",
        type=arguments.whole(1, word="all"),
        default=GATE_IMAGES,
        metavar="N|all",
        help="held-out images compared with the Keras model, spread over the split; 224-pixel ones "
        "take 150 KB each",
    )
    add(
        "--selftest-images",
        type=arguments.whole(0),
        default=8,
        metavar="N",
        help="held-out images that go with the version for its selftest.py",
    )


def run(args: argparse.Namespace) -> int:
    """Exports and shows the comparison with the Keras model."""
    if not 0 <= args.max_accuracy_drop <= 1:
        raise UsageError(f"--max-accuracy-drop is a share. Received: {args.max_accuracy_drop}")
    with told(ValueError, kind=UsageError):
        formats = runtimes.parse_formats(args.formats)
    everything = args.formats.strip() == "all"
    if everything and args.reject is not None:
        formats = [name for name in formats if name not in runtimes.INT8]
    unknown = rejection.check(args)
    int8 = [name for name in formats if name in runtimes.INT8]
    if args.reject is not None and int8:
        raise UsageError(
            f"{int8[0]} computes in 256 steps, too few for --reject. Leave it out of --formats."
        )
    if args.precision != "float32" and runtimes.TF_SERVING not in formats:
        raise UsageError(
            f"--precision {args.precision} is of the SavedModel. Add {runtimes.TF_SERVING} to "
            "--formats, or leave it out: other formats have their own."
        )
    if args.precision == "int8" and args.gpu:
        raise UsageError("--precision int8 is for processors. Leave out --gpu.")
    if args.equalize and not _needs_images(args, formats):
        raise UsageError(
            "--equalize is for int8: --precision int8, or one of --formats, as litert-int8."
        )
    if (args.run is None) == (args.model is None):
        raise UsageError("Name what is exported: a RUN, or --model NAME.")
    check_folder(args.out, "--out")
    from keras_lightnets.errors import ExportError

    if args.model is not None or (networks.is_weight_file(args.run) and args.run.is_file()):
        networks.check(args)
        if args.reject is not None:
            raise UsageError("--reject is set on held-out images: export a run.")
        source = None
    else:
        source = _open_run(args)
    if everything:
        formats = [name for name in formats if _is_possible(name, source)]
    with told(ExportError):
        runtimes.check_installed(formats)
        written = (
            _export(args, formats, source, unknown) if source else _export_network(args, formats)
        )
    _print(written)
    if runtimes.TF_SERVING in formats:
        console.line(f"Next: {command('serve', args.out)}")
    elif "web" in formats:
        page = shlex.quote(str(written / runtimes.FILES["web"][0]))
        console.line(f"Next: python3 -m http.server --directory {page} 8080")
    return 0


def _open_run(args: argparse.Namespace) -> runs.Run:
    runs.check_is_run(args.run)
    args.weights = args.weights or "best"
    if args.weights not in ("best", "last"):
        raise UsageError(f"--weights of a run is best or last. Received: {args.weights}")
    if args.transform_of is not None:
        raise UsageError("--transform-of is for weight files: a run knows its own transform.")
    source = runs.Run.open(args.run)
    source.weights(args.weights)
    return source


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
    args: argparse.Namespace, formats: list[str], source: runs.Run, unknown: list[str]
) -> pathlib.Path:
    """Writes everything asked for and returns the new directory."""
    splits, model = source.splits(args.dataset), source.model(args.weights)
    _check_target(args, model.name, source.labels)
    rule = None
    if args.reject is not None:
        rule = rejection.fit(model, splits, args.reject, unknown)
        for line in rejection.lines(rule.about):
            console.line(line)
    held_out = held_out_images(splits, args.gate_images)
    console.line(f"Comparing on {len(held_out.images)} of {splits.eval_examples} held-out images")
    console.line(splits.describe())
    run = {"name": args.run.resolve().name, "config": portable(configs.to_dict(source.config))}
    return _write(
        args,
        formats,
        networks.Network(model, source.labels, source.transform),
        metadata={"run": run},
        held_out=held_out,
        representative=representative_images(splits) if _needs_images(args, formats) else None,
        rule=rule,
    )


def _is_possible(name: str, source: runs.Run | None) -> bool:
    """Whether a run, or a network that no run made, can be had in a format."""
    if source is None:  # there are no images to learn ranges from
        return name not in runtimes.INT8
    if f"--formats {name}" in TASKS[source.config.train.task].lacks:
        return False
    return name != "keras" or source.config.model.quantize == "none"


def _needs_images(args: argparse.Namespace, formats: list[str]) -> bool:
    return args.precision == "int8" or not runtimes.INT8.isdisjoint(formats)


def _export_network(args: argparse.Namespace, formats: list[str]) -> pathlib.Path:
    """Writes a network that no run made; there are no images but synthetic ones to compare on."""
    if _needs_images(args, formats):
        name = next((each for each in formats if each in runtimes.INT8), "--precision int8")
        raise UsageError(f"{name} needs images to learn ranges from: export a run.")
    network = networks.load(args.run, args.model, args.weights, args.transform_of)
    if network.transform is None:
        raise networks.no_transform(args.run)
    _check_target(args, network.model.name, network.labels)
    origin = {"file": args.run.name} if args.run else {"network": args.model}
    return _write(args, formats, network, metadata={"weights": origin})


def _check_target(args: argparse.Namespace, name: str, labels: list[str] | None) -> None:
    """Checks, before any image is read, what needs none."""
    from keras_lightnets.export.formats import DIRECTORY

    args.name = name if args.name is None else args.name
    bundle.check_name(args.name)
    model_dir = args.out / args.name
    bundle.choose_version([model_dir, model_dir / DIRECTORY], args.version)
    if labels is not None:
        bundle.check_same_classes(model_dir, labels)


def _write(
    args: argparse.Namespace,
    formats: list[str],
    network: networks.Network,
    metadata: dict[str, Any],
    held_out: HeldOut | None = None,
    representative: np.ndarray | None = None,
    rule: Rejection | None = None,
) -> pathlib.Path:
    from keras_lightnets.export import saved_model as export

    job = export.prepare(
        network.model,
        args.out,
        network.labels,
        args.version,
        name=args.name,
        transform=network.transform,
        held_out=held_out,
        options=export.ExportOptions(
            input_dtype=args.input_dtype,
            top_k=args.top_k,
            features=args.features,
            precision=args.precision,
            gpu=args.gpu,
            formats=[key for key in formats if key != runtimes.TF_SERVING],
            timed=args.table,
            representative=representative,
            equalize=args.equalize,
            max_accuracy_drop=args.max_accuracy_drop,
            selftest_images=args.selftest_images,
            rejection=rule,
        ),
    )
    if runtimes.TF_SERVING not in formats:
        return export.export_formats(job)
    return export.export_job(job, metadata, console.line)


_AGREEMENTS = {
    "top1_agreement": "same top-1",
    "label_agreement": "same labels",
    "known_agreement": "same known",
}


def _print(version: pathlib.Path) -> None:
    """Shows where the export is and how it compared with the Keras model."""
    rows = {}
    parity = version / bundle.EXTRA / bundle.PARITY
    if parity.is_file():
        rows = json.loads(parity.read_text())["signatures"]
    for folder in (version, version / bundle.EXTRA):
        if (folder / bundle.METADATA).is_file():
            rows |= json.loads((folder / bundle.METADATA).read_text()).get("formats", {})
    # Without held-out images of known classes there is no accuracy.
    shares = {"accuracy": "accuracy", "Keras": "keras_accuracy"}
    if any("mae" in row for row in rows.values()):
        shares = {"mean error": "mae", "Keras": "keras_mae"}
    if any(key not in row for row in rows.values() for key in shares.values()):
        shares = {}
    timed = any("ms_per_image" in row for row in rows.values())
    agreements = [key for key in _AGREEMENTS if any(key in row for row in rows.values())]
    first, *others = agreements or [""]
    console.table(
        (
            *("compared with Keras", "images", *((_AGREEMENTS[first],) if first else ())),
            "largest difference",
            *(_AGREEMENTS[key] for key in others),
            *shares,
            *(("MB", "ms an image") if timed else ()),
        ),
        [
            [
                name,
                row["images"],
                *((round(row["images"] * row[first]),) if first else ()),
                f"{row['max_difference']:.1e}",
                *(round(row["images"] * row[key]) for key in others),
                *(f"{row[key]:.4f}" for key in shares.values()),
                *(_size_and_time(row) if timed else ()),
            ]
            for name, row in rows.items()
        ],
    )
    console.line(f"Wrote {version}")


def _size_and_time(row: dict[str, Any]) -> tuple[str, str]:
    """Of a file for another runtime; a SavedModel is a folder, and servers take batches."""
    size = f"{row['bytes'] / 1e6:.3f}" if "bytes" in row else ""
    return size, f"{row['ms_per_image']:.2f}" if "ms_per_image" in row else ""


def representative_images(splits: Splits, count: int = _REPRESENTATIVE) -> np.ndarray:
    """Returns images of the training split, uint8, prepared as those to classify will be."""
    import numpy as np

    from lightnets.data.pipeline import evaluation_pixels

    source = splits.train_source
    batch = min(count, source.count)
    references = source.train_references(
        0, seed=splits.config.train.seed, global_batch=batch, shard=0, shards=1
    )

    def load(reference: Any, key: Any) -> Any:
        return evaluation_pixels(source.open(reference)[0], splits.transform)

    return np.stack(list(references.unbatch().take(batch).map(load).as_numpy_iterator()))


def held_out_images(splits: Splits, limit: int | None) -> HeldOut:
    """Collects held-out images with their classes and the files they come from.

    Args:
        splits: Of the run.
        limit: At most this many, spread over the whole split; None: all.
    """
    import numpy as np
    import tensorflow as tf

    from keras_lightnets.export.parity import HeldOut
    from lightnets.data import pillow, pipeline

    total = splits.eval_examples
    if not total:
        raise UserError("The run's held-out split is empty: nothing to check an export with.")
    source = splits.eval_source
    if limit is not None and limit < total:
        # Sources are often sorted by class: the first N would be of the first few.
        source = source.subset(np.linspace(0, total - 1, limit).astype(np.int64))

    def load(reference: Any, weight: Any) -> Any:
        file, label = source.open(reference)
        return pipeline.evaluation_pixels(file, splits.transform), label, file, weight

    examples = source.references(32).unbatch().map(load, num_parallel_calls=tf.data.AUTOTUNE)
    examples = examples.with_options(pipeline.options())
    rows = [row[:3] for row in examples.as_numpy_iterator() if row[3] > 0]
    images, labels, files = zip(*rows, strict=True)
    return HeldOut(np.stack(images), np.array(labels), tuple(map(pillow.portable, files)))
