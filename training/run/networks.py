"""A network that no run made: a published one by name, or a weight file."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_lightnets.catalogue.published import WeightsRow
from keras_lightnets.catalogue.registry import find, list_models, model_info, published
from lightnets.config.keys import ModelConfig
from lightnets.run.directory import Run, check_is_run, load_network
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command, count, nearest

if TYPE_CHECKING:
    import keras

    from keras_lightnets.preprocessing import EvalTransform


class Network(NamedTuple):
    """A network with what is known about its use.

    Attributes:
        model: From 0..255 RGB images to probabilities.
        labels: Class names in the order of the output, or None.
        transform: From image files to its input, or None.
        task: What its numbers mean, for `lightnets.tasks.of`; None: it is a classifier.
    """

    model: keras.Model
    labels: list[str] | None
    transform: EvalTransform | None
    task: Mapping[str, Any] | None = None


def add_arguments(parser: argparse.ArgumentParser, of_run: str = "") -> None:
    """Declares the flags of the commands that take a network which is no run.

    Args:
        of_run: What `--weights` may be for a run, as `best|last`.
    """
    parser.add_argument("--model", metavar="NAME", help="a network of `lightnets list`")
    parser.add_argument(
        "--weights",
        metavar=f"{of_run}|TAG|FILE".strip("|"),
        help="of --model (default: the most accurate)"
        + (", or of the run (default: best)" if of_run else ""),
    )
    parser.add_argument(
        "--transform-of",
        metavar="RUN|TAG",
        help="images are prepared as for this run, or as for these published weights",
    )


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what can be seen without TensorFlow."""
    if args.model is not None:
        check_name(args.model)
    if args.weights is not None and args.model is None:
        raise UsageError("--weights needs --model NAME.")
    if args.transform_of is not None and not pathlib.Path(args.transform_of).is_dir():
        _published(args.transform_of, args.model)


def check_name(name: str) -> None:
    """Raises UsageError unless there is a network of this name."""
    names = list_models()
    if ModelConfig(name).foreign:
        raise UsageError(
            f"{name}: only {command('train')} takes networks that are none of {command('list')}. "
            "Name a run of it."
        )
    if name not in names:
        raise UsageError(f"Unknown network {name!r}.{nearest(name, names)} See lightnets list.")


def fetch(name: str, sides: tuple[int, int], images: int) -> None:
    """Brings the published weights of a network here that were chosen, not asked for.

    Raises:
        UserError: They cannot be had; it says the ways on.
    """
    from keras_lightnets.weights.load import resolve

    family, row = find(name)
    size = sides[0] if sides[0] == sides[1] else None
    try:
        resolve("imagenet", family, {**family.defaults, **row.arguments}, size)
    except ValueError as error:
        raise UserError(
            str(error),
            "  to start from another file: --weights FILE",
            f"  to start from random weights, for which {count(images, 'picture')} are few: "
            "--weights none",
        ) from None


def is_url(target: str) -> bool:
    """Whether a target is a server's model."""
    return re.match(r"(https?|grpc)://", target) is not None


def is_weight_file(path: pathlib.Path) -> bool:
    """Whether a path names a file that holds a network's weights, and no graph of operations."""
    return path.name.endswith((".keras", ".h5", ".h5.zip", ".pth", ".safetensors"))


def open(target: str) -> Network:
    """Returns the network of a run, a weight file, or a registered name with its published weights.

    Raises:
        UserError: There is no such thing, or it is damaged or cannot be fetched.
    """
    path = pathlib.Path(target)
    if path.is_dir():
        from keras_lightnets.layers.notes import notes

        run = Run.open(path)
        model = run.model()
        return Network(model, run.labels, run.transform, notes(model).get("task"))
    return load(path, None, None, None) if path.exists() else load(None, target, None, None)


def load(
    file: pathlib.Path | None, name: str | None, weights: str | None, transform_of: str | None
) -> Network:
    """Builds a network and says how it is used.

    Args:
        file: Its weights; of other than `.keras` files, published ones say which network they are.
        name: Registered name instead.
        weights: With `name`: a tag or file; None: the most accurate published weights.
        transform_of: A run or a tag whose transform replaces that of the weights.

    Raises:
        UserError: There is no such file, it is damaged, or it does not fit.
    """
    from keras_lightnets.weights import load as weights_lib

    transform = labels = None
    if transform_of is not None:
        transform, labels = _transform_of(transform_of, name)
    if file is not None and file.suffix == ".keras":
        model = load_network(file)
    else:
        if file is not None:
            name, weights = weights_lib.network_of(file), str(file)
        if name is None:
            raise UserError(
                f"{file} is none of the published files. Name its network: --model NAME --weights "
                f"{file}"
            )
        model = _build(name, weights or "imagenet", transform)
    labels = weights_lib.class_names(model) or labels
    # Behind the output `known`, if it has that.
    if labels is not None and len(labels) != model.outputs[-1].shape[-1]:
        labels = None
    size = tuple(model.input_shape[1:3])
    if transform is not None and size not in ((None, None), transform.image_size):
        raise UserError(
            f"--transform-of {transform_of} makes images of size {transform.image_size}, but the "
            f"model takes {size}."
        )
    transform = transform or weights_lib.evaluation_transform(model)
    return Network(model, labels, transform, weights_lib.notes(model).get("task"))


def no_transform(target: str) -> UserError:
    """Returns the error for a network that does not say how images are prepared."""
    return UserError(
        f"{target} does not say how images are prepared. Add --transform-of RUN, or the tag of "
        f"published weights ({command('info', 'NETWORK')} lists them)."
    )


def _build(name: str, weights: str, transform: EvalTransform | None) -> keras.Model:
    import keras_lightnets

    size = {} if transform is None else {"input_shape": (*transform.image_size, 3)}
    try:
        return keras_lightnets.create_model(
            name, weights=weights, include_preprocessing=True, **size
        )
    except ValueError as error:
        raise UserError(f"Cannot build {name}: {error}") from None


def _transform_of(text: str, name: str | None) -> tuple[EvalTransform, list[str] | None]:
    if pathlib.Path(text).is_dir():
        check_is_run(pathlib.Path(text))
        run = Run.open(text)
        return run.transform, run.labels
    from keras_lightnets.weights import load as weights_lib

    return weights_lib.transform_of(_published(text, name)), None


def _published(tag: str, name: str | None) -> WeightsRow:
    """Returns the published weights with a tag, of network `name` if it is known.

    Raises:
        UsageError: There are none, or of several networks, which were measured differently.
    """
    if name is None:
        name, _, tag = tag.rpartition("/")
    names = [network for network in list_models() if name in ("", network)]
    found = {n: row for n in names for row in model_info(n).weights if row.tag == tag}
    if not found:
        close = nearest(tag, {row.tag for _, row in published()})
        raise UsageError(
            f"--transform-of: there is no run and no tag {tag!r}.{close} "
            f"See {command('info', 'NETWORK')}."
        )
    ways = {(row.resize_shorter, row.interpolation, row.antialias) for row in found.values()}
    if len(ways) > 1:
        raise UsageError(
            f"--transform-of: the weights {tag!r} of several networks were measured differently. "
            f"Name one: {next(iter(found))}/{tag}"
        )
    return next(iter(found.values()))
