"""The configuration of a run: frozen dataclasses, read from recipes, files and flags.

Precedence: defaults < recipe < `--config FILE` < flags and `--set section.key=value`. All that is
known about a key stands where it is declared: default, meaning, range, flag. Nothing here imports
TensorFlow, so that a mistake is reported in a moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from keras_lightnets.text import first_line
from lightnets.support.errors import UsageError
from lightnets.support.words import nearest
from lightnets.support.writing import write_text


def key(default: Any, help: str, **facts: Any) -> Any:
    """Declares a key: a field of a dataclass with what `Key` says of it besides."""
    metadata = {"help": help, **facts}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


# What the names of networks of `keras.applications` begin with.
APPLICATIONS = "keras.applications:"

# Of sizes: pixels of a square, or text such as `160x640`, height x width.
_SIZE = int | str


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and how it starts."""

    name: str = key(
        "shufflenet_v1",
        "network: a name of `lightnets list`, keras.applications:NAME, module:function or a .keras "
        "file",
        flag="--model",
    )
    args: Mapping[str, Any] = key(dict, "further arguments of the builder")
    alpha: float | None = key(None, "width multiplier", low=0.05, high=8, flag=True)
    image_size: int | str = key(
        224,
        "pixels of the square the network sees, or height x width, such as 160x640",
        low=32,
        high=4096,
        flag=True,
    )
    small_input: bool = key(
        False, "stem for images of 32 to 64 pixels: stride 1, no pooling", flag=True
    )
    dropout_rate: float | None = key(None, "None: the builder's default", low=0, high=0.99)
    bn_momentum: float = key(
        0.9, "share of the old moving statistics kept at each step", low=0, high=0.9999
    )
    weights: str | None = key(
        None, "start from these weights: a file or a tag as `imagenet`", flag=True
    )
    quantize: Literal["none", "int8"] = key(
        "none", "train the run of --weights on, with numbers rounded as in an int8 file", flag=True
    )
    freeze: str | None = key(
        None, "layers that do not learn: `backbone` or a regular expression", flag=True
    )
    head_warmup_epochs: int = key(0, "epochs in which only the head learns", low=0)
    unfreeze_epochs: int = key(
        0, "then: epochs over which stages are released, last one first", low=0
    )

    @property
    def foreign(self) -> bool:
        """Whether the network is none of this package's."""
        return ":" in self.name or self.is_file

    @property
    def has_builder(self) -> bool:
        """Whether this package or Keras builds it, from random weights unless told otherwise."""
        return not self.foreign or self.name.startswith(APPLICATIONS)

    @property
    def is_file(self) -> bool:
        """Whether the network is that of a `.keras` file."""
        return self.name.endswith(".keras")

    @property
    def label(self) -> str:
        """Its name for people: without folders."""
        return pathlib.PurePath(self.name).name

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of `image_size` in pixels."""
        height, _, width = str(self.image_size).partition("x")
        return int(height), int(width or height)


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from and what is done to them."""

    dataset: str = key(
        "",
        "TFDS name, folder of class folders, CSV or JSONL file",
        flag=True,
        resumable=True,  # what is there is verified
    )
    data_dir: str | None = key(None, "where TFDS keeps prepared data", flag=True, resumable=True)
    download: bool = key(False, "let TFDS download what is not prepared", flag=True, resumable=True)
    layout: Literal["auto", "classes", "splits"] = key(
        "auto", "what the folders in a folder are, where both make sense", flag=True
    )
    targets: str | None = key(
        None, "columns of a list, with commas, that --task multi-label or regression learns"
    )
    unlabelled: str | None = key(
        None,
        "folder or list of more pictures, of which --teacher says what they show",
        flag=True,
        resumable=True,  # they may have moved: what is there is verified
    )
    train_split: str | None = key(None, "TFDS split syntax; None: found")
    eval_split: str | None = key(None, "TFDS split syntax; None: found")
    val_split: float = key(
        0.2, "share held out when the data has no split of its own", low=0.001, high=0.9, flag=True
    )
    folds: int = key(
        0, "train once for each of N parts, which is held out then; 0: once", low=0, flag=True
    )
    fold: int = key(0, "which of the folds is held out; 0: one after the other", low=0)
    resize: Literal["crop", "stretch", "pad"] = key(
        "crop",
        "how a picture of another shape becomes the network's: cut, distorted or with margins",
        flag=True,
    )
    resize_shorter: int | None = key(
        None, "pixels of the shorter side before the centre crop; None: that of image_size / 0.875"
    )
    interpolation: Literal["bilinear", "bicubic"] = key("bilinear", "how images are resized")
    antialias: bool = key(True, "smooth before making images smaller")
    background: tuple[int, int, int] = key(
        (255, 255, 255), "RGB that shows through transparent pixels and fills margins"
    )
    scale_16_bit: bool = key(
        False, "take the range of values of each file of 16 bits for black to white"
    )
    crop: Literal["random_resized", "shift", "center"] = key(
        "random_resized",
        "the part of a training image that is seen; --resize stretch and pad "
        "take `center` or `shift`",
    )
    crop_area: tuple[float, float] = key((0.35, 1.0), "share of the image area")
    crop_aspect: tuple[float, float] = key(
        (0.75, 1.3333333), "width / height, as a multiple of the network's"
    )
    shift: float = key(
        0.1, "for crop `shift`: share of the side, in each direction", low=0, high=0.5
    )
    flip: bool = key(True, "mirror half of the training images horizontally")
    color_jitter: float = key(0.0, "strength", low=0, high=1)
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = key("none", "policy")
    mixup: float = key(0.0, "parameter of the beta distribution", low=0)
    cutmix: float = key(0.0, "parameter of the beta distribution", low=0)
    random_erasing: float = key(0.0, "probability", low=0, high=1)
    views: int = key(
        0,
        "views of each augmented image whose features --freeze backbone stores, 0: none",
        low=0,
        high=1000,
        flag=True,
    )
    skip_corrupt: bool = key(False, "train without damaged images instead of stopping", flag=True)
    data_service: str | None = key(
        None, "address of a tf.data service dispatcher", flag=True, resumable=True
    )
    num_threads: int = key(0, "0: one per core", low=0, high=256, resumable=True)
    class_weights: Literal["none", "balanced"] = key("none", "weights of the classes in the loss")

    @property
    def every_fold(self) -> bool:
        """Whether each fold is to be held out, one after the other."""
        return self.folds > 0 and self.fold == 0


LAYOUTS = typing.get_args(typing.get_type_hints(DataConfig)["layout"])


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule. Rates are per step, decay per epoch where said."""

    name: Literal["sgd", "rmsprop", "adamw", "lion", "muon"] = key(
        "sgd", "update rule", flag="--optimizer"
    )
    learning_rate: float = key(0.1, "peak, after the warm-up", low=0, flag=True)
    scale_to_batch: int = key(0, "multiply the rate by global batch / this; 0: leave it", low=0)
    momentum: float = key(0.9, "of sgd and rmsprop", low=0, high=1)
    nesterov: bool = key(True, "of sgd")
    rho: float = key(0.9, "rmsprop: decay of the squared gradients", low=0, high=1)
    epsilon: float | None = key(None, "None: the optimizer's default", low=1e-12)
    beta_1: float | None = key(
        None, "adamw, lion, muon; None: the optimizer's default", low=0, high=1
    )
    beta_2: float | None = key(None, "likewise", low=0, high=1)
    weight_decay: float = key(
        4e-5, "L2 for sgd and rmsprop, decoupled for the others", low=0, flag=True
    )
    decay_norm_and_bias: bool = key(False, "whether batch norm and biases decay, too")
    decay_depthwise: bool = key(True, "whether depthwise kernels decay, too")
    global_clipnorm: float | None = key(None, "over all variables", low=1e-9)
    clipnorm: float | None = key(None, "per variable", low=1e-9)
    clipvalue: float | None = key(None, "per value", low=1e-9)
    schedule: Literal["constant", "linear", "cosine", "polynomial", "exponential", "step"] = key(
        "cosine", "learning rate over time", flag=True
    )
    warmup_epochs: float = key(0.0, "epochs in which the rate rises", low=0)
    warmup_start: float = key(0.0, "share of the peak rate at step 0", low=0, high=1)
    end_rate: float = key(
        0.0, "share of the peak rate at the end (linear, cosine, polynomial)", low=0, high=1
    )
    power: float = key(1.0, "polynomial", low=0)
    decay_rate: float = key(0.98, "exponential, step: factor", low=0, high=1)
    decay_epochs: float = key(1.0, "exponential, step: epochs between two factors", low=1e-3)
    extensions: Mapping[str, Any] = key(
        dict, "epochs after which the schedule begins anew, each with its rate; --extend adds one"
    )

    @property
    def begun(self) -> int:
        """After how many epochs the present schedule began."""
        return max(map(int, self.extensions), default=0)


@dataclass(frozen=True)
class TrainConfig:
    """The loop: length, batch, precision, devices, checkpoints."""

    task: Literal["classification", "multi-label", "regression"] = key(
        "classification",
        "what is answered: one class an image, any of several labels, or numbers",
        flag=True,
        group="data",
    )
    loss: Literal["mse", "huber"] = key(
        "mse", "of --task regression: huber forgives single numbers that are far off"
    )
    epochs: int = key(90, "passes over the training images", low=1, flag=True)
    batch_size: int = key(
        256, "images a step, over all devices, workers and parts", low=1, flag=True
    )
    eval_batch_size: int = key(0, "0: batch_size", low=0)
    accumulate: int = key(1, "parts into which each batch is cut to save memory", low=1, flag=True)
    seed: int = key(
        0,
        "decides initial weights, order, augmentation and dropout",
        low=0,
        high=2**31 - 1,
        flag=True,
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = key(
        "auto", "of the arithmetic; auto: by device", flag=True, group="machine"
    )
    devices: str = key(
        "all", "all, 0,1 (GPUs) or cpu:2 (logical CPUs)", flag=True, group="machine", resumable=True
    )
    gpu_memory: Literal["all", "grow"] = key(
        "all", "all: taken at the start; grow: as it is needed", resumable=True
    )
    workers: str | None = key(
        None, "host:port,... of all machines", flag=True, group="machine", resumable=True
    )
    worker_index: int = key(
        0, "which of --workers this is", low=0, flag=True, group="machine", resumable=True
    )
    worker_wait_minutes: float = key(
        10.0, "at the start, for workers that are not there yet", low=0, resumable=True
    )
    deterministic: bool = key(False, "the same bits again on GPUs too, slower; CPUs always are")
    sync_bn: bool = key(False, "batch statistics over all devices", flag=True, group="machine")
    ema: float = key(
        0.0, "decay of the average of weights; 0: none", low=0, high=0.999999, flag=True
    )
    label_smoothing: float = key(0.0, "share of the label given to all", low=0, high=0.9)
    recompute: bool = key(False, "batch norms and ReLUs again in the backward pass: less memory")
    steps_per_execution: int = key(
        1, "steps in one call of the graph", low=1, flag=True, group="machine", resumable=True
    )
    jit: Literal["off", "on", "auto"] = key(
        "auto", "compile the step with XLA", flag=True, group="machine", resumable=True
    )
    checkpoint_steps: int = key(
        0,
        "steps between checkpoints; 0: each epoch",
        low=0,
        flag=True,
        group="output",
        resumable=True,
    )
    keep_checkpoints: int = key(3, "the newest ones", low=2, resumable=True)
    monitor: str = key("val_accuracy", "which result makes weights the best")
    early_stopping_epochs: int = key(
        0, "epochs without a better result; 0: never stop early", low=0, flag="--early-stopping"
    )
    time_limit_minutes: float = key(
        0.0,
        "minutes after which the run stops and is saved; 0: none",
        low=0,
        flag="--time-limit",
        group="machine",
        resumable=True,
    )
    tensorboard: bool = key(
        False, "write TensorBoard logs into the run", flag=True, group="output", resumable=True
    )


@dataclass(frozen=True)
class DistillationConfig:
    """A trained network whose answers count beside the labels; names as in `keras.distillation`."""

    teacher: str | None = key(
        None,
        "learn the answers of this network, too: a run, a .keras file of 0..255 images, "
        "keras.applications:NAME or a name of `lightnets list`",
        flag=True,
        resumable=True,  # it may have moved: its weights are verified
    )
    temperature: float = key(
        3.0, "both networks' logits are divided by it: higher is softer", low=0.01, high=1000
    )
    student_loss_weight: float = key(
        0.5, "weight of the labels' loss; the rest is the teacher's", low=0, high=1
    )


@dataclass(frozen=True)
class Config:
    """Everything that decides the outcome of a run."""

    recipe: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)


@dataclass(frozen=True)
class Key:
    """What is known about one key of the configuration.

    Attributes:
        name: As `section.key`.
        type: Of its values.
        default: Its value unless told otherwise.
        help: Its meaning and unit, for `--help`.
        low: Lowest value that is allowed, or None.
        high: Highest value that is allowed, or None.
        flag: The flag that sets it, beside `--set section.key=value`, or None. A declaration
            says True if it is named as the key.
        group: Heading under which `--help` lists the flag; None: that of the section.
        resumable: Whether `--resume` may change it: it decides how a run is computed, not what.
    """

    name: str
    type: Any
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    flag: str | None = None
    group: str | None = None
    resumable: bool = False

    @property
    def metavar(self) -> str:
        """What stands for the value in `--help`."""
        kind = next(k for k in typing.get_args(self.type) or (self.type,) if k is not type(None))
        if isinstance(kind, str):
            return "|".join(typing.get_args(self.type))
        return {int: "N", float: "X"}.get(kind, self.name.partition(".")[2].upper())

    @property
    def is_text(self) -> bool:
        """Whether its values are names, paths or other text."""
        parts = typing.get_args(self.type) or (self.type,)
        return all(part in (str, type(None)) or isinstance(part, str) for part in parts)


def declared() -> Iterator[Key]:
    """Yields all keys, in the order in which they are declared."""
    for section in dataclasses.fields(Config):
        value = getattr(Config(), section.name)
        if not dataclasses.is_dataclass(value):
            continue
        hints = typing.get_type_hints(type(value))
        for one in dataclasses.fields(value):
            name, facts = f"{section.name}.{one.name}", dict(one.metadata)
            if facts.get("flag") is True:
                facts["flag"] = "--" + one.name.replace("_", "-")
            yield Key(name, hints[one.name], getattr(value, one.name), **facts)


def value_of(config: Config, name: str) -> Any:
    """Returns the value of the key `section.key`, or of `recipe`."""
    return functools.reduce(getattr, name.split("."), config)


def to_dict(config: Config) -> dict[str, Any]:
    """Returns nested dictionaries that YAML and `from_dict` take."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # a tuple becomes a list


def from_dict(values: Mapping[str, Any], *, where: str = "configuration") -> Config:
    """Returns the configuration of nested `values` over the defaults.

    Raises:
        UsageError: An unknown key (with the nearest one) or a value of the wrong kind.
    """
    return update(Config(), values, where=where)


# Keys that files of earlier runs have, which can still be read.
_GONE = {"data": "cache", "train": "reestimate_bn_batches"}


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a YAML file of configuration keys, not yet checked."""
    path = pathlib.Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the configuration {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = first_line(error)
        raise UsageError(f"{path} is not valid YAML: {line}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold keys and values. Received: {type(values).__name__}.")
    for section, key in _GONE.items():
        if isinstance(values.get(section), dict):
            values[section].pop(key, None)
    return values


def save(config: Config, path: str | pathlib.Path) -> None:
    """Writes all keys as YAML; `load` and `--config` read it back."""
    write_text(pathlib.Path(path), yaml.safe_dump(to_dict(config), sort_keys=False))


def update(config: Any, values: Mapping[str, Any], *, where: str, prefix: str = "") -> Any:
    """Returns a copy of a (nested) dataclass with `values` in it, each checked by its type."""
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise UsageError(f"Unknown key {name!r} in {where}.{nearest(key, hints)}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UsageError(f"{name} in {where} is a section of keys. Received: {value!r}.")
            section = getattr(config, key)
            changes[key] = update(section, value, where=where, prefix=f"{name}.")
        else:
            changes[key] = _checked(value, hints[key], name, where)
    return dataclasses.replace(config, **changes)


def parse_assignment(text: str) -> dict[str, Any]:
    """Turns `section.key=value` into nested dictionaries; the value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set takes section.key=value. Received: {text!r}.")
    try:
        # YAML 1.1 reads 0x32 as 50, which no height and width are.
        is_size = re.fullmatch(r"\s*\d+x\d+\s*", value)
        nested: Any = value.strip() if is_size else yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"The value of --set {path} is not valid YAML: {value!r}.") from None
    for key in reversed(path.strip().split(".")):
        nested = {key: nested}
    return nested


# What YAML makes of a bare `off`, `on` and `null`.
_YAML_WORDS = {False: "off", True: "on", None: "none"}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_MOST = 2**31 - 1  # TensorFlow counts much in 32 bits


def _checked(value: Any, hint: Any, name: str, where: str) -> Any:
    """Returns `value` as the type `hint`, or explains what was expected."""

    def refused(wanted: str, more: str = "") -> UsageError:
        return UsageError(f"{name} in {where} {wanted}. Received: {value!r}.{more}")

    if hint == _SIZE:
        return _image_size(value, refused)
    options = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(option for option in options if option is not type(None))
        return _checked(value, hint, name, where)
    if origin is Literal:
        word = _YAML_WORDS[value] if value is None or isinstance(value, bool) else value
        if word not in options:
            raise refused(f"must be one of {', '.join(options)}", nearest(str(value), options))
        return word
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(options):
            raise refused(f"takes {len(options)} values")
        pairs = zip(value, options, strict=True)
        return tuple(_checked(item, option, name, where) for item, option in pairs)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise refused("takes keys and values")
        return dict(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 4e-5 as text; it wants 4.0e-5.
        with contextlib.suppress(ValueError):
            value = float(value)
    is_flag = isinstance(value, bool)
    if hint is str and isinstance(value, (int, float)) and not is_flag:
        return str(value)
    if hint is float and isinstance(value, (int, float)) and not is_flag:
        if isinstance(value, int):
            value = float(min(value, 10**300))  # a float holds no larger ones
        if not math.isfinite(value):
            raise refused("must be a finite number")
    if not isinstance(value, hint) or (is_flag and hint is not bool):
        raise refused(f"must be {_KINDS[hint]}")
    if hint is int and isinstance(value, int) and abs(value) > _MOST:
        raise refused(f"must be at most {_MOST}")
    return value


def _image_size(value: Any, refused: Callable[[str], UsageError]) -> int | str:
    """Returns a number, a pair, or text such as `160x640` in the one way it is kept."""
    text = "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    found = re.fullmatch(r"(\d{1,99})(?:x(\d{1,99}))?", text)
    if found is None:
        raise refused("must be a whole number, or height x width such as 160x640")
    height, width = int(found[1]), int(found[2] or found[1])
    return height if height == width else f"{height}x{width}"
