"""Published weight files."""

from __future__ import annotations

from typing import NamedTuple


class WeightsRow(NamedTuple):
    """One published file."""

    tag: str


WEIGHTS: dict[str, tuple[WeightsRow, ...]] = {}
