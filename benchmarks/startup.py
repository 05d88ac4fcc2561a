"""How long until something happens?

    python benchmarks/startup.py

`lightnets --help` against a bare Python, and the time from the command to the end of the first
training step: `lightnets train --dry-run` against a minimal script with `keras.applications`. Each
measurement is a fresh process; the sides take turns.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import time

import common

PEER = """
import keras, numpy as np
model = keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=10)
model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy",
              metrics=["accuracy"])
images = np.random.default_rng(0).uniform(size=(32, 64, 64, 3)).astype("float32")
labels = np.eye(10, dtype="float32")[np.arange(32) % 10]
model.fit(images, labels, batch_size=32, verbose=0)
print("First step", flush=True)
"""

TRAIN = """
train --dry-run --dataset digits --model mobilenet_v2 --batch-size 32 --set optimizer.name=sgd
--set model.image_size=64 --set data.resize_shorter=64
"""


def seconds_until(command: list[str], line: str | None) -> float:
    """Seconds until a process prints `line`, or until it ends."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for text in process.stdout:
            if line is not None and text.startswith(line):
                elapsed = time.perf_counter() - start
                process.kill()
                return elapsed
        process.wait()
    if line is not None:
        raise RuntimeError(f"{command} ended without printing {line!r}")
    return time.perf_counter() - start


def measure(turns: int) -> list[common.Row]:
    """Times both questions."""
    cli = [sys.executable, "-m", "lightnets.cli"]
    help_times = common.interleave(
        {
            "lightnets --help": lambda: seconds_until([*cli, "--help"], None),
            "python -c pass": lambda: seconds_until([sys.executable, "-c", "pass"], None),
        },
        seconds=0,
        warm_up=1,
        min_turns=max(turns, 5),
    )
    first_step = [*cli, *TRAIN.split()]
    step_times = common.interleave(
        {
            "lightnets train": lambda: seconds_until(first_step, "First step"),
            "keras.applications script": lambda: seconds_until(
                [sys.executable, "-c", PEER], "First step"
            ),
        },
        seconds=0,
        warm_up=0,
        min_turns=turns,
    )
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", *cli[1:], "--help"], capture_output=True, text=True
    ).stderr
    note = "TensorFlow was imported" if "tensorflow" in loaded else "without TensorFlow"
    return [
        common.compare(
            help_times,
            "lightnets --help",
            "python -c pass",
            case="start of --help",
            one_process=False,
            note=note,
        ),
        common.compare(
            step_times,
            "lightnets train",
            "keras.applications script",
            case="command to first training step",
            target=1.0,  # raised from 1 / 1.2
            one_process=False,
            unit="s",
            scale=1,
            note="both momentum SGD; lightnets reads and augments images, the script has noise",
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    common.save("startup", measure(args.turns), args.out)


if __name__ == "__main__":
    main()
