"""The directory of a run: what `lightnets train` leaves and every other command reads.

config.yaml        the resolved configuration        history.csv, history.json
environment.json   versions, devices, commit, seed   results.json, predictions.csv
per_class.csv, or per_label.csv, per_value.csv       answers.png, where numbers are told
labels.txt (.json) one class name a line             report.html, curves.png, confusion_matrix.png
transform.json     the evaluation transform          weights/best.keras, weights/last.keras
split.json         which pictures were held out      checkpoints/, lock.json
MODEL_CARD.md      how well, and where it fails  features.npz, where the backbone did not learn
suspects.csv, .txt pictures whose label may be wrong
teacher.sha256     of the weights of the teacher, where there was one
network.sha256     of the layers, where the network is none of this package
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_lightnets.catalogue import class_names
from keras_lightnets.text import first_line
from lightnets.config import keys as configs
from lightnets.config.validate import validate
from lightnets.run import run_lock
from lightnets.support import modules
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command
from lightnets.support.writing import write_json

if TYPE_CHECKING:
    import keras

    from keras_lightnets.preprocessing import EvalTransform
    from lightnets.data import Splits

ENVIRONMENT = "environment.json"
_PACKAGES = ("keras-lightnets", "tensorflow", "keras", "numpy", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class Run:
    """An existing run directory, read and checked."""

    path: pathlib.Path
    config: configs.Config
    labels: list[str]
    transform: EvalTransform

    @classmethod
    def open(cls, path: str | os.PathLike) -> Run:
        """Reads a run directory.

        Raises:
            UserError: `path` is no run directory, or one of its files is damaged.
        """
        path = pathlib.Path(path)
        check_is_run(path)
        from keras_lightnets.preprocessing import EvalTransform

        try:
            config = configs.from_dict(configs.load(path / "config.yaml"), where="config.yaml")
            if config.data.every_fold:
                raise UserError(
                    f"{path} holds {config.data.folds} folds, each a run. Name one: {path}/fold-1."
                )
            labels = class_names.read(path)
            transform = EvalTransform.from_dict(json.loads((path / "transform.json").read_text()))
        except OSError as error:
            name = pathlib.Path(error.filename).name
            raise UserError(
                f"The run {path} lacks {name} ({error.strerror}). "
                "Was it interrupted before its first step? Train it again with --overwrite."
            ) from None
        except (ValueError, KeyError, TypeError, UsageError) as error:
            raise UserError(f"A file of the run {path} is damaged: {error}") from None
        return cls(path, config, labels, transform)

    @classmethod
    def create(cls, path: str | os.PathLike, config: configs.Config, splits: Splits) -> Run:
        """Makes the directory and writes what is known before the first step."""
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, config, list(splits.labels), splits.transform)
        # First of all: it marks the folder as a run, which --resume and --overwrite ask for.
        configs.save(config, path / "config.yaml")
        (path / "weights").mkdir(exist_ok=True)
        class_names.write(path, run.labels)
        write_json(path / "transform.json", run.transform.to_dict())
        splits.save(path)
        write_json(path / ENVIRONMENT, environment(config))
        return run

    def weights(self, which: str = "best") -> pathlib.Path:
        """Returns the path of `weights/best.keras` or `weights/last.keras`.

        Raises:
            UserError: The run has no such file yet.
        """
        path = self.path / "weights" / f"{which}.keras"
        if not path.is_file():
            raise UserError(
                f"The run {self.path} has no weights ({path.relative_to(self.path)} is missing). "
                f"Finish it first: {command('train', '--resume', self.path)}"
            )
        return path

    def model(self, which: str = "best") -> keras.Model:
        """Returns the network: uint8 or 0..255 RGB images in, float32 probabilities out."""
        path = self.weights(which)
        if self.config.model.foreign and not self.config.model.is_file:
            with contextlib.suppress(UserError):  # layers of Keras load without it
                modules.load(self.config.model.name)  # registers layers of its own
        return load_network(path)

    def splits(self, dataset: str | None = None) -> Splits:
        """Returns the data the run was trained and evaluated on, split as then.

        Args:
            dataset: Where it is now, if it has moved; what is there is verified.
        """
        from lightnets import data

        if dataset is None:
            return data.load(self.config, saved=self.path)
        values = {"data": {"dataset": dataset}}
        moved = configs.update(self.config, values, where="the command line")
        return data.load(moved, saved=self.path, verified=True)


def seconds(path: pathlib.Path) -> float:
    """Returns how long the epochs of the run at `path` took, as `note_seconds` wrote it."""
    file = path / ENVIRONMENT
    return json.loads(file.read_text()).get("seconds", 0.0) if file.is_file() else 0.0


def note_seconds(path: pathlib.Path, spent: float) -> None:
    """Notes in the run at `path` how long its epochs took, over all its processes."""
    about = json.loads((path / ENVIRONMENT).read_text())
    write_json(path / ENVIRONMENT, {**about, "seconds": round(spent, 1)})


# Keys of a run that `train --resume` changes for good.
_FOLLOWED = ("data.dataset", "data.unlabelled", "distillation.teacher")
_FOLLOWED += ("train.epochs", "optimizer.extensions")


def follow(path: pathlib.Path, config: configs.Config) -> None:
    """Notes in the run at `path` where its data and its teacher are now, and how far it goes."""
    file = path / "config.yaml"
    saved = configs.from_dict(configs.load(file), where="config.yaml")
    values: dict[str, Any] = {}
    for name in _FOLLOWED:
        section, key = name.split(".")
        values.setdefault(section, {})[key] = configs.value_of(config, name)
    followed = configs.update(saved, values, where="the command line")
    if followed != saved:
        configs.save(followed, file)


def epochs_done(path: pathlib.Path) -> int:
    """Returns after how many epochs the run at `path` is finished.

    Raises:
        UserError: It is not finished, or a folder of folds.
    """
    check_is_run(path)
    config = configs.from_dict(configs.load(path / "config.yaml"), where=f"{path}/config.yaml")
    validate(config)
    if config.data.every_fold:
        raise UserError(f"{path} holds a run for each fold. Name one of them: {path / 'fold-1'}")
    results: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    # Those of before the last extension say nothing.
    if results.get("finished") and results["epochs"] > config.optimizer.begun:
        return results["epochs"]
    raise UserError(
        f"{path} is not finished: it has {config.train.epochs} epochs to train. "
        f"Finish it first: {command('train', '--resume', path)}"
    )


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether `path` looks like a run."""
    return (pathlib.Path(path) / "config.yaml").is_file()


def check_is_run(path: pathlib.Path) -> None:
    """Raises UserError, without importing TensorFlow, unless `path` looks like a run."""
    if not path.exists():
        raise UserError(f"There is no run directory {path}.")
    if not is_run(path):
        raise UserError(
            f"{path} is not a run directory (it has no config.yaml). "
            "Name the folder given to `lightnets train --out`."
        )


@contextlib.contextmanager
def claim(path: pathlib.Path, *, overwrite: bool) -> Iterator[None]:
    """Makes an empty folder for a new run, and holds it.

    Raises:
        UserError: It holds something already, is in use, or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"--out {path} is a file. Name a folder that does not exist yet.")
    if path.is_dir() and _contents(path):
        # Only a run is ever deleted: `--overwrite` on a home directory must do no harm.
        if overwrite:
            check_is_run(path)
        else:
            run_lock.check(path)
            raise UserError(
                f"{path} exists. Continue it with --resume, replace it with --overwrite, "
                "or name another folder with --out."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create {path}: {error.strerror}.") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{path} is not writable.")
    with run_lock.held(path):
        for old in _contents(path):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        yield


def _contents(path: pathlib.Path) -> list[pathlib.Path]:
    return [entry for entry in path.iterdir() if entry.name != run_lock.NAME]


def environment(config: configs.Config) -> dict[str, Any]:
    """Returns what one needs to know to repeat a run elsewhere."""
    from importlib import metadata

    import tensorflow as tf

    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "git_commit": _git_commit(),
        "seed": config.train.seed,
    }


def _git_commit() -> str | None:
    """Returns the commit of the checkout this code runs from, with `+` if it was changed."""
    folder = pathlib.Path(__file__).resolve().parent

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        # An installed copy may lie below somebody else's repository: that commit says nothing.
        ask("ls-files", "--error-unmatch", __file__)
        return ask("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    return None


def save_network(model: keras.Model, path: pathlib.Path) -> None:
    """Writes a `.keras` file, whole or not at all.

    Raises:
        UserError: It cannot be written; a previous file stays.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. "
            "The checkpoints are intact: resume when it can be written."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(model: keras.Model, path: pathlib.Path) -> None:
    """Reads the weights that `save_network` wrote into the same network.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"Cannot read the weights in {path}: {first_line(error)}") from None


def load_network(path: pathlib.Path) -> keras.Model:
    """Returns the model of a `.keras` file, not compiled.

    Raises:
        UserError: It is no such file, or is damaged.
    """
    import keras

    if not zipfile.is_zipfile(path):  # Keras would say that there is no such file
        raise UserError(f"Cannot load {path}: it is no .keras file, or is cut off")
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"Cannot load {path}: {first_line(error)}") from None
