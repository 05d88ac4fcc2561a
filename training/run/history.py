"""The numbers of every epoch, and which epoch was the best."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from lightnets.config.tasks import LOWER
from lightnets.support.errors import UsageError
from lightnets.support.writing import csv_text, write_json, write_text


class History:
    """One row an epoch. Lives in the checkpoint; the files are written anew from it.

    Nothing in it depends on time or on how often the run was interrupted. What the network was
    before its first step may be the best, too, as epoch 0, which is not among the rows.

    Attributes:
        monitor: The column that makes an epoch the best.
        values: What a checkpoint keeps.
    """

    def __init__(self, monitor: str):
        self.monitor = monitor
        self._sign = -1 if monitor.endswith(LOWER) else 1
        self.values: dict[str, Any] = {"rows": [], "start": None}

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows, oldest first."""
        return self.values["rows"]

    @property
    def start(self) -> dict[str, float] | None:
        """The row of epoch 0, if that was evaluated."""
        return self.values.get("start")

    @property
    def best(self) -> dict[str, float] | None:
        """The best row; None if all are NaN.

        Of equal values, the one with the lower held-out loss is better: few held-out images make
        few different accuracies, and the first epoch that reaches one is often still unsure.
        """
        rows = [row for row in self._candidates if not math.isnan(row.get(self.monitor, math.nan))]
        return max(rows, key=self._rank, default=None)

    @property
    def epochs_since_best(self) -> int:
        """Epochs without a better value."""
        rows = self._candidates
        return 0 if self.best is None else len(rows) - 1 - rows.index(self.best)

    @property
    def _candidates(self) -> list[dict[str, float]]:
        return [self.start, *self.rows] if self.start else self.rows

    def begin(self, row: dict[str, float]) -> None:
        """Notes what the network was before its first step."""
        self.values["start"] = row

    def add(self, row: dict[str, float]) -> bool:
        """Adds a row; returns whether it is the best so far.

        Raises:
            UsageError: It lacks the monitored value.
        """
        if self.monitor not in row:
            raise UsageError(
                f"train.monitor must be one of {', '.join(row)}. Received: {self.monitor!r}."
            )
        best = self.best
        self.rows.append(row)
        if math.isnan(row[self.monitor]):
            return False
        return best is None or self._rank(row) > self._rank(best)

    def _rank(self, row: dict[str, float]) -> tuple[float, float]:
        # Means of equal numbers may differ in the last bits.
        return round(self._sign * row[self.monitor], 9), -row.get("val_loss", 0.0)

    def write(self, folder: pathlib.Path) -> None:
        """Writes `history.csv` and `history.json`."""
        write_json(folder / "history.json", self.rows)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        rows = [[row.get(key, "") for key in columns] for row in self.rows]
        write_text(folder / "history.csv", csv_text(columns, rows))
