"""Have the ratios that matter fallen? Re-measures them in under three minutes.

    python benchmarks/check.py

Each has a floor of 80 % of its row in `results/` (of any machine that measured it, the lowest).
Ends with a table of them; exit code 1 if one is below. Not part of the tests: a loaded machine can
fail it.
"""

from __future__ import annotations

import argparse
import sys
import time
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

    return data_pipeline.measure(next(iter(data_pipeline.CASES)), 384, 6, None)


def recorded(case: str, peer: str) -> float | None:
    """The lowest ratio on record for a comparison."""
    found = [
        float(row["ratio"])
        for path in common.RESULTS.glob("*.csv")
        for row in common.load(path)
        if row.get("case") == case and row.get("peer") == peer
    ]
    return min(found, default=None)


def verdict(rows: list[common.Row]) -> tuple[str, bool]:
    """A table of the ratios beside their floors, and whether one is below its floor."""
    lines = [f"{'ratio':>6} {'floor':>6} {'record':>6}       what"]
    failed = False
    for row in rows:
        before = recorded(row.case, row.peer)
        what = f"{row.case}, {row.ours} against {row.peer}"
        if before is None:
            lines.append(f"{row.ratio:6.2f} {'':6} {'none':>6}       {what}")
            continue
        floor = FLOOR * before
        below = row.ratio < floor
        failed |= below
        mark = "BELOW" if below else "ok"
        lines.append(f"{row.ratio:6.2f} {floor:6.2f} {before:6.2f} {mark:5} {what}")
    return "\n".join(lines), failed


def main(arguments: list[str] | None = None) -> int:
    """Runs the check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    start = time.perf_counter()
    parts: tuple[Callable[[], list[common.Row]], ...] = (train_step, inference, pipeline)
    table, failed = verdict([row for part in parts for row in part()])
    print(f"\n{table}\n")
    took = f"{time.perf_counter() - start:.0f} s"
    if failed:
        print(
            f"Below {FLOOR:.0%} of the record ({took}). If other programs are running, end them "
            "and repeat; otherwise look at the last changes to what is marked."
        )
    else:
        print(f"All ratios hold ({took}).")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
