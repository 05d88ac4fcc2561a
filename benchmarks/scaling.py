"""How does the cost of training grow, and where does it depart from the arithmetic?

    python benchmarks/scaling.py [--axis width depth image_size ...]

Along each axis one quantity grows and the rest stays. `time` and `work` are relative to the
axis' first point; `work` is what arithmetic alone would cost (multiply-accumulates of a step, or
images). `time / work` below 1 is overhead that shrinks in proportion, above 1 a departure upwards.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import pathlib
import re
import statistics
import subprocess
import sys
from collections.abc import Callable

import common


@dataclasses.dataclass(frozen=True)
class Point:
    """One measured point of an axis."""

    axis: str
    value: float
    milliseconds: float
    time: float  # relative to the first point of the axis, median of neighbouring turns
    work: float  # likewise
    why: str


def mobilenet(*, alpha=0.5, size=96, classes=1000):
    """MobileNet v2."""
    import keras_lightnets

    return keras_lightnets.create_model(
        "mobilenet_v2", input_shape=(size, size, 3), alpha=alpha, classes=classes
    )


def stack(depth: int):
    """`depth` depthwise separable blocks of 128 channels at 24x24."""
    import keras

    from keras_lightnets import blocks

    inputs = keras.Input((96, 96, 3))
    x = blocks.conv_bn(inputs, 128, 7, strides=4, norm=blocks.Norm(), name="stem")
    for block in range(depth):
        x = blocks.depthwise_bn(
            x, activation="relu", norm=blocks.Norm(), name=f"block{block}_depthwise"
        )
        x = blocks.conv_bn(x, 128, norm=blocks.Norm(), name=f"block{block}_project")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1000, activation="softmax")(x))


# axis: (values, how to build a model, size and batch of a value, why it departs from the work)
AXES = {
    "width": (
        (0.35, 0.5, 0.75, 1.0, 1.4),
        lambda v: (mobilenet(alpha=v), 96, 16, 1000),
        "MACs grow with the square of the width, the memory traffic of batch norms, activations "
        "and depthwise convolutions only with the width",
    ),
    "depth": (
        (2, 4, 8, 16, 32),
        lambda v: (stack(v), 96, 16, 1000),
        "the stem and the classifier do not grow",
    ),
    "image_size": (
        (32, 64, 96, 128, 192, 224),
        lambda v: (mobilenet(size=v), v, 16, 1000),
        "at small sizes a step is dominated by the fixed cost of its 1,500 operations and by the "
        "update of the weights",
    ),
    "batch": (
        (1, 2, 4, 8, 16, 32, 64),
        lambda v: (mobilenet(), 96, v, 1000),
        "the fixed cost of operations and the update of the weights are shared by more images",
    ),
    "classes": (
        (10, 100, 1000, 10_000, 21_841),
        lambda v: (mobilenet(classes=v), 96, 16, v),
        "the classifier has few MACs but many weights: its update is memory traffic",
    ),
}


def measure_axis(axis: str, seconds: float) -> list[Point]:
    """Times the training step at all points of an axis, in turns."""
    import keras
    import models

    from keras_lightnets.complexity import count_macs

    keras.backend.clear_session()
    values, build, why = AXES[axis]
    sides, work = {}, {}
    for value in values:
        model, size, batch, classes = build(value)
        sides[value] = models.fit_steps(model, size=size, batch=batch, classes=classes, steps=2)
        work[value] = count_macs(model) * batch
    return relative(axis, common.interleave(sides, seconds=seconds, warm_up=1), work, why)


def relative(axis: str, turns: common.Turns, work: dict, why: str) -> list[Point]:
    """Everything over the axis' first point."""
    times = turns.seconds
    first = next(iter(times))
    points = [
        Point(
            axis=axis,
            value=value,
            milliseconds=statistics.median(seconds) * 1e3,
            time=statistics.median(b / a for a, b in zip(times[first], seconds, strict=True)),
            work=work[value] / work[first],
            why=why,
        )
        for value, seconds in times.items()
    ]
    for point in points:
        print(
            f"{axis} {point.value:g}: {point.milliseconds:.4g} ms, time x{point.time:.2f}, "
            f"work x{point.work:.2f}",
            flush=True,
        )
    return points


def measure_examples(seconds: float) -> list[Point]:
    """Drawing the examples of a step, by the number of examples in the data set."""
    import tensorflow as tf

    from training.data import order

    def draw(examples: int) -> Callable[[], None]:
        @tf.function
        def positions(step):
            return order.step_positions(
                step, examples=examples, global_batch=256, seed=0, shard=0, shards=1
            )

        return lambda: [positions(tf.constant(s, tf.int64)).numpy() for s in range(50)] and None

    sides = {n: draw(n) for n in (1_000, 100_000, 10_000_000, 1_000_000_000)}
    times = common.interleave(sides, seconds=seconds)
    why = "the order is computed, not stored: neither time nor memory depends on the data set"
    return relative("examples", times, dict.fromkeys(sides, 1), why)


def measure_replicas(turns: int) -> list[Point]:
    """`lightnets train --dry-run` on logical devices that share this machine's cores."""

    def run(replicas: int) -> float:
        command = (
            "-m training.cli train --dry-run --dataset digits --model mobilenet_v2 "
            f"--batch-size 64 --set train.devices=cpu:{replicas} --set model.image_size=64 "
            "--set data.resize_shorter=64"
        )
        output = subprocess.run(
            [sys.executable, *command.split()], check=True, capture_output=True, text=True
        ).stdout
        return float(re.search(r"then (\d+) ms a step", output).group(1)) / 1e3

    sides = {n: (lambda n=n: run(n)) for n in (1, 2, 4)}
    times = common.interleave(sides, seconds=0, warm_up=0, min_turns=turns)
    why = "the global batch is the same and the replicas share the cores; what grows is the sum"
    return relative("replicas", times, dict.fromkeys(sides, 1), why)


def save(points: list[Point], folder: pathlib.Path) -> None:
    """Writes the points, keeping those of other axes, and draws all of them."""
    path = common.result_file("scaling", folder)
    new = {point.axis for point in points}
    old = [r for r in common.load(path) if r["axis"] not in new] if path.exists() else []
    rows = old + [
        {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in dataclasses.asdict(p).items()}
        for p in points
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        columns = [field.name for field in dataclasses.fields(Point)]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, path.with_suffix(".png"))
    print(f"Wrote {path}")


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Time over work, one panel per axis, with the line on which cost is proportional."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = plt.subplots(
        1,
        len(axes_names),
        figsize=(3.2 * len(axes_names), 3.2),
        layout="constrained",
        squeeze=False,
    )
    for panel, name in zip(panels[0], axes_names, strict=True):
        own = [row for row in rows if row["axis"] == name]
        x = [float(row["value"]) for row in own]
        panel.loglog(x, [float(row["time"]) for row in own], "o-", label="time")
        panel.loglog(x, [float(row["work"]) for row in own], "--", color="gray", label="work")
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7)
    panels[0][0].set_ylabel("relative to the first point")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    names = [*AXES, "examples", "replicas"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=25.0, help="per axis")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for axis in args.axis:
        if axis == "examples":
            save(measure_examples(min(args.seconds, 5)), args.out)
        elif axis == "replicas":
            save(measure_replicas(3), args.out)
        else:
            save(measure_axis(axis, args.seconds), args.out)


if __name__ == "__main__":
    main()
