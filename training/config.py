"""The configuration of a run: frozen dataclasses, read from recipes, files and flags.

Precedence: defaults < recipe < `--config FILE` < flags and `--set section.key=value`.
Nothing here imports TensorFlow, so that a mistake is reported in a moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from training.errors import UsageError
from training.words import nearest


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and how it starts."""

    name: str = "shufflenet_v1"  # a name of `lightnets list`
    args: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the builder
    alpha: float | None = None  # width multiplier; None: the builder's default
    image_size: int = 224  # pixels, of the square that the network sees
    small_input: bool = False  # stem for 32 to 64 pixel images: stride 1, no pool
    dropout_rate: float | None = None  # None: the builder's default
    bn_momentum: float = 0.9  # share of the old moving statistics kept at each step
    weights: str | None = None  # path, or a tag such as "imagenet"
    freeze: str | None = None  # what to keep fixed: "backbone", or a regex of layer names
    head_warmup_epochs: int = 0  # epochs in which only the head learns
    unfreeze_epochs: int = 0  # then: epochs over which stages are released, last one first


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from and what is done to them."""

    dataset: str = "digits"  # TFDS name, folder, CSV or JSONL file
    data_dir: str | None = None  # where TFDS keeps prepared data
    download: bool = False  # let TFDS fetch what is not prepared
    train_split: str | None = None  # TFDS split syntax; None: found
    eval_split: str | None = None
    val_split: float = 0.2  # share held out when the source has no split of its own
    resize_shorter: int | None = None  # pixels before the centre crop; None: image_size / 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    crop: Literal["random_resized", "shift", "center"] = "random_resized"
    crop_area: tuple[float, float] = (0.35, 1.0)  # share of the image area
    crop_aspect: tuple[float, float] = (0.75, 1.3333333)  # width / height
    shift: float = 0.1  # for crop "shift": share of the side, in each direction
    flip: bool = True  # horizontal
    color_jitter: float = 0.0
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = "none"
    mixup: float = 0.0  # parameter of the beta distribution
    cutmix: float = 0.0
    random_erasing: float = 0.0  # probability
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    skip_corrupt: bool = False
    data_service: str | None = None  # address of a tf.data service dispatcher
    num_threads: int = 0  # 0: one per core
    class_weights: Literal["none", "balanced"] = "none"


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule. Rates are per step, decay per epoch where said."""

    name: Literal["sgd", "rmsprop", "adamw", "lion", "muon"] = "sgd"
    learning_rate: float = 0.1  # peak, after the warm-up
    scale_to_batch: int = 0  # multiply the rate by global batch / this; 0: leave it
    momentum: float = 0.9
    nesterov: bool = True
    rho: float = 0.9  # rmsprop: decay of the squared gradients
    epsilon: float | None = None  # None: the optimizer's default
    beta_1: float | None = None  # adamw, lion, muon; None: the optimizer's default
    beta_2: float | None = None
    weight_decay: float = 4e-5  # L2 for sgd and rmsprop, decoupled for the others
    decay_norm_and_bias: bool = False
    decay_depthwise: bool = True
    global_clipnorm: float | None = None
    clipnorm: float | None = None  # per variable
    clipvalue: float | None = None
    schedule: Literal["constant", "linear", "cosine", "polynomial", "exponential", "step"] = (
        "cosine"
    )
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0  # share of the peak rate at step 0
    end_rate: float = 0.0  # share of the peak rate at the end (linear, cosine, polynomial)
    power: float = 1.0  # polynomial
    decay_rate: float = 0.98  # exponential, step: factor
    decay_epochs: float = 1.0  # exponential, step: epochs between two factors


@dataclass(frozen=True)
class TrainConfig:
    """The loop: length, batch, precision, devices, checkpoints."""

    epochs: int = 90
    batch_size: int = 256  # global: over all replicas, workers and accumulated parts
    eval_batch_size: int = 0  # 0: batch_size
    accumulate: int = 1  # parts into which a replica's batch is cut
    seed: int = 0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    devices: str = "all"  # "all", "0,1", "cpu:2" (logical CPUs)
    workers: str | None = None  # host:port,... of all workers; None: TF_CONFIG or one machine
    worker_index: int = 0
    worker_wait_minutes: float = 10.0  # at the start, for workers that are not there yet
    deterministic: bool = False  # the same bits again on GPUs too, slower; CPUs always are
    sync_bn: bool = False
    reestimate_bn_batches: int = 0  # after training: batches to measure BN statistics on
    ema: float = 0.0  # decay of the average of weights; 0: no average
    label_smoothing: float = 0.0
    recompute: bool = False  # batch norms and ReLUs again in the backward pass: less memory
    steps_per_execution: int = 1
    jit: Literal["off", "on", "auto"] = "auto"
    checkpoint_steps: int = 0  # optimizer steps between checkpoints; 0: at each epoch's end
    keep_checkpoints: int = 3
    monitor: str = "val_accuracy"  # which result makes weights the best
    early_stopping_epochs: int = 0  # epochs without a better result; 0: never stop early
    time_limit_minutes: float = 0.0  # 0: none
    tensorboard: bool = False


@dataclass(frozen=True)
class Config:
    """Everything that decides the outcome of a run."""

    recipe: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def to_dict(config: Config) -> dict[str, Any]:
    """Returns nested dictionaries that YAML and `from_dict` take."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def from_dict(values: Mapping[str, Any], *, where: str = "configuration") -> Config:
    """Returns the configuration of nested `values` over the defaults.

    Raises:
        UsageError: An unknown key (with the nearest one) or a value of the wrong kind.
    """
    return update(Config(), values, where=where)


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a YAML file of configuration keys, not yet checked."""
    path = pathlib.Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the configuration {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{path} is not valid YAML: {line}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold keys and values. Received: {type(values).__name__}.")
    return values


def save(config: Config, path: str | pathlib.Path) -> None:
    """Writes all keys as YAML; `load` and `--config` read it back."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    pathlib.Path(path).write_text(text, encoding="utf-8")


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
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"The value of --set {path} is not valid YAML: {value!r}.") from None
    for key in reversed(path.strip().split(".")):
        nested = {key: nested}
    return nested


_YAML_WORDS = {False: "off", True: "on", None: "none"}
_MOST = 2**31 - 1  # TensorFlow counts much in 32 bits


def _checked(value: Any, hint: Any, name: str, where: str) -> Any:
    """Returns `value` as the type `hint`, or explains what was expected."""
    options = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        hint = next(option for option in options if option is not type(None))
        return _checked(value, hint, name, where)
    if origin is Literal:
        # YAML reads a bare `off`, `on` and `null` as something else than text.
        is_word = value is None or isinstance(value, bool)
        word = _YAML_WORDS[value] if is_word else value
        if word not in options:
            choices = ", ".join(map(str, options))
            hint_text = nearest(str(value), map(str, options))
            raise UsageError(
                f"{name} in {where} must be one of {choices}. Received: {value!r}.{hint_text}"
            )
        return word
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(options):
            raise UsageError(f"{name} in {where} takes {len(options)} values. Received: {value!r}.")
        pairs = zip(value, options, strict=True)
        return tuple(_checked(item, option, name, where) for item, option in pairs)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} in {where} takes keys and values. Received: {value!r}.")
        return dict(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 4e-5 as text; it wants 4.0e-5.
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(min(value, 10**300))
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} in {where} must be a finite number. Received: {value!r}.")
    if hint is int and isinstance(value, int) and abs(value) > _MOST:
        raise UsageError(f"{name} in {where} must be at most {_MOST}. Received: {value!r}.")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
        raise UsageError(f"{name} in {where} must be {kind}. Received: {value!r}.")
    return value
