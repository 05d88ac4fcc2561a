"""What a user sees of a run: a table with one row an epoch, and a bar on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from keras_lightnets.text import visible
from lightnets.support import console

# Numbers of the history that the table shows in the middle, which has more, with their titles.
_OF_CLASSES = {"accuracy": "acc", "val_accuracy": "val_acc"}
_SPEED_WIDTH = 10


class Progress:
    """Shows the progress of training; silent unless `shown` (workers other than the first)."""

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        batch: int,
        *,
        shown: bool = True,
        columns: Mapping[str, str] = _OF_CLASSES,
    ):
        training, held_out = columns.items()
        # Each with its title and width. No number is wider than 8, all of a row fits 80 columns.
        self._columns = {
            "loss": ("loss", 9),
            training[0]: (training[1], 8),
            "val_loss": ("val_loss", 9),
            held_out[0]: (held_out[1], 9),
            "learning_rate": ("rate", 9),
        }
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._batch = batch
        self._shown = shown
        self._bar = _bar() if shown and sys.stdout.isatty() else None
        self._task: Any = None
        self._epoch = 1
        self._first_step = 0
        self._started = time.monotonic()
        self._steps, self._seconds = 0, 0.0
        self._has_header = False

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if not self._shown:
            return
        if self._bar is None:
            console.line(text)
        else:
            self._bar.console.print(visible(text), highlight=False, markup=False)

    def start_epoch(self, epoch: int, step: int) -> None:
        """Begins epoch number `epoch` (the first is 1), from `step` on within it."""
        self._epoch, self._first_step = epoch, step
        self._started = time.monotonic()
        if self._bar is None:
            return
        title = f"epoch {epoch}/{self._epochs}"
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(title, total=self._steps_per_epoch, speed="", eta="")
        self._bar.reset(self._task, description=title, completed=step)

    def update(self, step: int) -> None:
        """Notes that `step` steps of the epoch are done."""
        done = step - self._first_step
        if self._bar is None or not done:
            return
        seconds = (time.monotonic() - self._started) / done
        left = (self._epochs - self._epoch + 1) * self._steps_per_epoch - step
        speed = f"{self._batch / seconds:.0f} images/s"
        eta = f"{duration(left * seconds)} left"
        self._bar.update(self._task, completed=step, speed=speed, eta=eta)

    def end_training(self, step: int) -> None:
        """Notes that the last step of the epoch is done; evaluation follows."""
        self._steps = step - self._first_step
        self._seconds = time.monotonic() - self._started

    def end_epoch(self, row: Mapping[str, float], *, best: bool) -> None:
        """Prints the row of an epoch, below a header if it is the first.

        Args:
            row: Of the history.
            best: Whether it is the best so far.
        """
        first = max(len("epoch"), len(f"{self._epochs}/{self._epochs}"))
        if not self._has_header:
            titles = [f"{title:>{width}}" for title, width in self._columns.values()]
            self.say("epoch".ljust(first) + "".join(titles) + f"{'images/s':>{_SPEED_WIDTH}}  left")
            self._has_header = True
        parts = [f"{row['epoch']}/{self._epochs}".ljust(first)]
        parts += [f"{_short(row[key]):>{width}}" for key, (_, width) in self._columns.items()]
        speed, notes = "", []
        if self._steps:
            speed = f"{self._steps * self._batch / max(self._seconds, 1e-9):.0f}"
            epochs_left = self._epochs - row["epoch"]
            if epochs_left and self._steps == self._steps_per_epoch:
                notes.append(duration(epochs_left * (time.monotonic() - self._started)))
        notes += ["best"] * best
        if skipped := int(row.get("skipped_steps", 0)):
            notes.append(f"{skipped} steps skipped so far")
        self.say("  ".join(["".join([*parts, f"{speed:>{_SPEED_WIDTH}}"]), *notes]).rstrip())

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()


def _short(value: float) -> str:
    """At most 8 characters; what a schedule leaves of a rate at its end is 0."""
    if abs(value) < 1e-9:
        return "0"
    text = f"{value:.4g}"
    return text if len(text) <= 8 else f"{value:.2e}"


def duration(seconds: float) -> str:
    """Returns for example `42 s`, `3 min 20 s` or `5 h 7 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _bar() -> Any:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TextColumn("{task.fields[eta]}"),
        transient=True,
    )
