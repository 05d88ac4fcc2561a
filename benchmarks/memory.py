"""How much memory does a training step need beside `keras.applications`?

    python benchmarks/memory.py

Each measurement is a fresh process that builds MobileNet v2 and trains three steps of 224-pixel
images; its peak resident memory is what counts. "Net of start-up" leaves out what the process
used before the first step: Python, TensorFlow, weights. "recomputing" is within
`recompute_activations`; what that costs in time is measured as well.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import common

CODE = """
import json, resource, sys
sys.path.insert(0, {folder!r})
import models, keras_lightnets, keras_lightnets.layers
ours, batch = {ours!r}, {batch}
if ours:
    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(224, 224, 3))
else:
    model = models.keras_application("mobilenet_v2", 224)
step = models.fit_steps(model, size=224, batch=batch, steps=2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
with keras_lightnets.layers.recompute_activations(ours == "recomputing"):
    step()
print(json.dumps([peak(), peak() - before]))
"""


def measure(batch: int, repeats: int) -> list[common.Row]:
    """Peak memory of the peer, of ours, and of ours with `recompute_activations`, in turns."""
    folder = str(pathlib.Path(__file__).parent)
    sides = ("keras_lightnets", "recomputing", "")
    peaks = {side: [] for side in sides}
    for _ in range(repeats):
        for ours, found in peaks.items():
            code = CODE.format(folder=folder, ours=ours, batch=batch)
            run = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            )
            found.append(json.loads(run.stdout.splitlines()[-1]))
    rows = []
    for side, suffix in zip(sides, ("", " recomputing"), strict=False):
        rows.append(_row(peaks, side, 0, f"peak memory, {{}}{suffix}", batch, 1 / 0.65))
        rows.append(_row(peaks, side, 1, f"net of start-up, {{}}{suffix}", batch, None))
    return rows


def _row(
    peaks: dict[str, list], side: str, column: int, case: str, batch: int, target: float | None
) -> common.Row:
    ours, theirs = ([peak[column] for peak in peaks[name]] for name in (side, ""))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    row = common.Row(
        case=case.format(f"train step mobilenet_v2-224-b{batch}"),
        ours="keras_lightnets",
        peer="keras.applications",
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        best=min(theirs) / min(ours),
        processor=None,
        ours_value=statistics.median(ours) / 2**20,
        peer_value=statistics.median(theirs) / 2**20,
        unit="MiB",
        turns=len(ratios),
        target=target,
    )
    common.print_row(row)
    return row


def measure_time(batch: int, seconds: float) -> common.Row:
    """What recomputing costs in time: the same network with and without it, in turns."""
    import models

    import keras_lightnets
    from keras_lightnets.layers import recompute_activations

    sides = {}
    for name in ("recomputing", "keras_lightnets"):
        model = keras_lightnets.create_model("mobilenet_v2", input_shape=(224, 224, 3))
        sides[name] = models.fit_steps(model, size=224, batch=batch, steps=2)
        with recompute_activations(name == "recomputing"):
            sides[name]()  # traces
    times = common.interleave(sides, seconds=seconds, warm_up=0)
    case = f"time, train step mobilenet_v2-224-b{batch} recomputing"
    return common.compare(times, "recomputing", "keras_lightnets", case=case)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="of the memory; 0: only the time")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the time")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    if args.repeats:
        common.save("memory", measure(args.batch, args.repeats), args.out)
    common.save("memory", [measure_time(args.batch, args.seconds)], args.out)


if __name__ == "__main__":
    main()
