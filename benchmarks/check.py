"""Have the ratios that matter fallen? Re-measures them in under three minutes.

    python benchmarks/check.py

Each has a floor of 80 % of its row in `results/` (of any machine that measured it, the lowest).
Exit code 1 if one is below. Not part of the tests: a loaded machine can fail it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import common

FLOOR = 0.8


def train_step() -> list[common.Row]:
    """MobileNet v2 and ShuffleNet v1 against Keras."""
    import train_step

    cases = ("mobilenet_v2-224-b16", "shufflenet_v1_g3-64-b32")
    return [train_step.measure(case, seconds=8) for case in cases]


def inference() -> list[common.Row]:
    """MobileNet v2, plain and folded."""
    import inference

    return inference.measure("mobilenet_v2", 16, seconds=8)


def pipeline() -> list[common.Row]:
    """The input pipeline against Keras' layers and bare decoding."""
    import data_pipeline

    return data_pipeline.measure(384, 6, None)


def recorded(case: str, peer: str) -> float | None:
    """The lowest ratio on record for a comparison."""
    found = [
        float(row["ratio"])
        for path in common.RESULTS.glob("*.csv")
        for row in common.load(path)
        if row.get("case") == case and row.get("peer") == peer
    ]
    return min(found, default=None)


def failures(rows: list[common.Row]) -> list[str]:
    """One line for each ratio below its floor."""
    lines = []
    for row in rows:
        before = recorded(row.case, row.peer)
        if before is not None and row.ratio < FLOOR * before:
            lines.append(
                f"{row.case} against {row.peer}: {row.ratio:.2f}, "
                f"below {FLOOR:.0%} of the recorded {before:.2f}"
            )
    return lines


def main() -> int:
    """Runs the check."""
    parts: tuple[Callable[[], list[common.Row]], ...] = (train_step, inference, pipeline)
    lines = [line for part in parts for line in failures(part())]
    print("\n".join(lines) if lines else "All ratios hold.")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
