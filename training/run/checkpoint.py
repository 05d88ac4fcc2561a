"""Checkpoints to resume from: written whole or not at all, read back whole or refused.

`tf.train.Checkpoint` writes to a temporary name and renames, and checks sums when it reads. What
it lacks is added here: a damaged newest checkpoint gives way to the one before, and which there
are is read from their files. `tf.train.CheckpointManager` would take the names of the oldest for
patterns when it deletes them.
"""

from __future__ import annotations

import fnmatch
import json
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from keras_lightnets.paths import literal_path
from keras_lightnets.text import first_line
from lightnets.support.errors import UserError

_PREFIX = "ckpt"
_REMAINS = f"{_PREFIX}-*temp*"  # of a write that was killed


class HostState(tf.train.experimental.PythonState):
    """Everything outside TensorFlow that a run continues with, as JSON in the checkpoint."""

    def __init__(self, values: dict[str, Any]):
        self.values = values

    def serialize(self) -> str:
        return json.dumps(self.values)

    def deserialize(self, string_value: str) -> None:
        self.values.clear()
        self.values.update(json.loads(string_value))


class Checkpoints:
    """The checkpoints of one run, named by the step after which they were written."""

    def __init__(
        self,
        folder: pathlib.Path,
        variables: Mapping[str, Sequence[tf.Variable]],
        host: dict[str, Any],
        *,
        keep: int,
        writer: bool = True,
    ):
        """Prepares to write and read; touches the disk only to clear what a crash left.

        Args:
            folder: Where they are; made when the first is written.
            variables: What to keep, by purpose, each in a fixed order.
            host: Values for JSON; changed in place by `restore`.
            keep: How many to keep.
            writer: Whether this process writes (of several workers only one does).
        """
        self.folder = folder
        self._writer = writer
        self._keep = keep
        self._host = host
        tracked = {name: list(values) for name, values in variables.items()}
        self._checkpoint = tf.train.Checkpoint(**tracked, host=HostState(host))
        _ = self._checkpoint.save_counter  # made by being asked for; part of every checkpoint

    def save(self, step: int) -> None:
        """Writes all values; the oldest checkpoint beyond `keep` is deleted.

        Raises:
            UserError: The disk is full or cannot be written to. The last good one stays.
        """
        if not self._writer:
            return
        try:
            self._clear_remains()
            path = self._checkpoint.write(str(self.folder / f"{_PREFIX}-{step}"))
            # For `tf.train.latest_checkpoint` of others.
            tf.compat.v1.train.update_checkpoint_state(str(self.folder), path)
            older = [s for s in self.steps() if s < step]
            for old in older[: max(len(older) + 1 - self._keep, 0)]:
                self._remove(old)
        except (tf.errors.OpError, OSError) as error:
            self._remove(step)  # gives back the room of what was written
            good = self.steps()
            kept = f" The checkpoint of step {good[-1]} is intact." if good else ""
            raise UserError(
                f"Cannot write the checkpoint of step {step} to {self.folder} "
                f"({first_line(error)}).{kept} Make room, then resume."
            ) from None

    def steps(self) -> list[int]:
        """Returns the steps that have an index or data file, the newest last."""
        found = set()
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if match := re.fullmatch(rf"{_PREFIX}-(\d+)\.(index|data-.*)", path.name):
                    found.add(int(match[1]))
        return sorted(found)

    def restore(self) -> tuple[int | None, list[str]]:
        """Reads the newest checkpoint that can be read.

        Returns:
            Its step, or None where there has never been one, and what was wrong with those
            that had to be passed over.

        Raises:
            UserError: There are checkpoints, or what is left of them, but none can be read.
        """
        problems = []
        for step in reversed(self.steps()):
            problem = self._read(step)
            if problem is None:
                return step, problems
            problems.append(problem)
        if problems:
            raise UserError(
                f"No checkpoint in {self.folder} can be read, and starting again from step 0 "
                f"would discard the run. {' '.join(problems)} Restore the folder from a copy, "
                "or train anew with --overwrite."
            )
        left = sorted(p.name for p in self.folder.iterdir()) if self.folder.is_dir() else []
        if left := [name for name in left if not fnmatch.fnmatch(name, _REMAINS)]:
            raise UserError(
                f"{self.folder} holds {left[0]} but no checkpoint: its files were deleted. "
                "Restore them from a copy, or train anew with --overwrite."
            )
        return None, []

    def restore_step(self, step: int) -> None:
        """Reads the checkpoint of `step` and no other.

        Raises:
            UserError: It cannot be read.
        """
        if problem := self._read(step):
            raise UserError(problem)

    def _read(self, step: int) -> str | None:
        """Reads a checkpoint; returns what is wrong with it."""
        path = self.folder / f"{_PREFIX}-{step}"
        for name in (f"{path.name}.index", f"{path.name}.data-00000-of-00001"):
            if not (self.folder / name).is_file():
                return f"{self.folder / name} is missing."
        try:
            with literal_path(self.folder) as folder:
                self._checkpoint.read(str(folder / path.name)).assert_consumed()
        # Truncated data raises IndexError, damaged ones OpError (measured on TF 2.21), a
        # damaged table of objects whatever its parser finds.
        except (KeyError, TypeError, DecodeError) as error:
            return f"{path}.index is damaged ({first_line(error)})."
        except (IndexError, tf.errors.OpError, json.JSONDecodeError) as error:
            end = "index" if "index" in str(error) else "data-00000-of-00001"
            return f"{path}.{end} is damaged ({first_line(error)})."
        except (AssertionError, ValueError) as error:
            return f"{path}.index does not fit this run ({first_line(error)})."
        return None

    def _clear_remains(self) -> None:
        """Makes the folder, or removes what a crash has left in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(_REMAINS):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _remove(self, step: int) -> None:
        for pattern in (f"{_PREFIX}-{step}.*", f"{_PREFIX}-{step}_*"):
            for path in self.folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
