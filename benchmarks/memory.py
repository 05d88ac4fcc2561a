"""How much memory does a training step need beside `keras.applications`?

    python benchmarks/memory.py

Each measurement is a fresh process that builds MobileNet v2 and trains three steps of 224-pixel
images; its peak resident memory is what counts. "Net of start-up" leaves out what the process
used before the first step: Python, TensorFlow, weights.
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
import models, keras_lightnets
ours, batch = {ours}, {batch}
if ours:
    model = keras_lightnets.create_model("mobilenet_v2", input_shape=(224, 224, 3))
else:
    model = models.keras_application("mobilenet_v2", 224)
step = models.fit_steps(model, size=224, batch=batch, steps=2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
step()
print(json.dumps([peak(), peak() - before]))
"""


def measure(batch: int, repeats: int) -> list[common.Row]:
    """Peak memory of both sides, in turns."""
    folder = str(pathlib.Path(__file__).parent)
    peaks = {True: [], False: []}
    for _ in range(repeats):
        for ours, found in peaks.items():
            code = CODE.format(folder=folder, ours=ours, batch=batch)
            run = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            )
            found.append(json.loads(run.stdout.splitlines()[-1]))
    rows = []
    for column, what, target in ((0, "peak memory", 1 / 0.7), (1, "net of start-up", None)):
        ours, theirs = ([peak[column] for peak in peaks[side]] for side in (True, False))
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        rows.append(
            common.Row(
                case=f"{what}, train step mobilenet_v2-224-b{batch}",
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
                turns=repeats,
                target=target,
            )
        )
        common.print_row(rows[-1])
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    common.save("memory", measure(args.batch, args.repeats), args.out)


if __name__ == "__main__":
    main()
