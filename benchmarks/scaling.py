"""How does the cost of training grow, and where does it depart from the arithmetic?

    python benchmarks/scaling.py [--axis width depth image_size ...]

Along each axis one quantity grows and the rest stays. Time, multiply-accumulates and bytes are
relative to the axis' first point. Where time grows less than both of the others there was a fixed
cost that more work shares; where it grows like the larger of the two, that is the limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
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
    macs: float  # multiply-accumulates of a step, likewise
    bytes: float  # what a step reads and writes at least, likewise; see `traffic`
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

    from keras_lightnets.networks import blocks

    inputs = keras.Input((96, 96, 3))
    x = blocks.conv_bn(inputs, 128, 7, strides=4, norm=blocks.Norm(), name="stem")
    for block in range(depth):
        x = blocks.depthwise_bn(
            x, activation="relu", norm=blocks.Norm(), name=f"block{block}_depthwise"
        )
        x = blocks.conv_bn(x, 128, norm=blocks.Norm(), name=f"block{block}_project")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1000, activation="softmax")(x))


def traffic(model, batch: int) -> int:
    """Bytes that a training step reads and writes, if every tensor came from memory each time.

    An activation is written and read once in the forward pass; in the backward pass it is read
    again and its gradient written and read. A weight is read in both passes, its gradient written
    and read, its momentum and itself read or written.
    """
    activations = sum(
        math.prod(layer.output.shape[1:]) for layer in model.layers if len(layer.output.shape) > 1
    )
    return 4 * (5 * batch * activations + 7 * model.count_params())


# axis: (values, how to build a model, size and batch of a value, why it departs)
AXES = {
    "width": (
        (0.35, 0.5, 1.0, 1.4),
        lambda v: (mobilenet(alpha=v), 96, 16, 1000),
        "MACs grow with the square of the width, the memory traffic of batch norms, activations "
        "and depthwise convolutions only with the width",
    ),
    "depth": (
        (2, 8, 32),
        lambda v: (stack(v), 96, 16, 1000),
        "the stem and the classifier do not grow",
    ),
    "image_size": (
        (32, 64, 128, 224),
        lambda v: (mobilenet(size=v), v, 16, 1000),
        "at small sizes a step is dominated by the fixed cost of its 1,500 operations and by the "
        "update of the weights",
    ),
    "batch": (
        (1, 4, 16, 64),
        lambda v: (mobilenet(), 96, v, 1000),
        "the fixed cost of operations and the update of the weights are shared by more images",
    ),
    "classes": (
        (10, 1000, 10_000, 21_841),
        lambda v: (mobilenet(classes=v), 96, 16, v),
        "the classifier has few MACs but many weights: its update is memory traffic",
    ),
}


def measure_axis(axis: str, seconds: float) -> list[Point]:
    """Times the training step at all points of an axis, in turns."""
    import keras
    import models

    from keras_lightnets.networks.complexity import count_macs

    keras.backend.clear_session()
    values, build, why = AXES[axis]
    sides, macs, moved = {}, {}, {}
    for value in values:
        model, size, batch, classes = build(value)
        sides[value] = models.fit_steps(model, size=size, batch=batch, classes=classes, steps=2)
        macs[value] = count_macs(model) * batch
        moved[value] = traffic(model, batch)
    return relative(axis, common.interleave(sides, seconds=seconds, warm_up=1), macs, moved, why)


def relative(axis: str, turns: common.Turns, macs: dict, moved: dict, why: str) -> list[Point]:
    """Everything over the axis' first point."""
    times = turns.seconds
    first = next(iter(times))
    points = [
        Point(
            axis=axis,
            value=value,
            milliseconds=statistics.median(seconds) * 1e3,
            time=statistics.median(b / a for a, b in zip(times[first], seconds, strict=True)),
            macs=macs[value] / macs[first],
            bytes=moved[value] / moved[first],
            why=why,
        )
        for value, seconds in times.items()
    ]
    for point in points:
        print(
            f"{axis} {point.value:g}: {point.milliseconds:.4g} ms, time x{point.time:.2f}, "
            f"MACs x{point.macs:.2f}, bytes x{point.bytes:.2f}",
            flush=True,
        )
    return points


def measure_examples(seconds: float) -> list[Point]:
    """Drawing the examples of a step, by the number of examples in the data set."""
    import tensorflow as tf

    from lightnets.data.sources import order

    def draw(examples: int) -> Callable[[], None]:
        @tf.function
        def positions(step):
            return order.step_positions(
                step, examples=examples, global_batch=256, seed=0, shard=0, shards=1
            )

        return lambda: [positions(tf.constant(s, tf.int64)).numpy() for s in range(50)] and None

    sides = {n: draw(n) for n in (1_000, 100_000, 10_000_000, 1_000_000_000)}
    times = common.interleave(sides, seconds=seconds)
    why = (
        "the order is computed, not stored; TensorFlow's shuffle draws 16-bit numbers until one is "
        "below the size, so for small sets it draws more"
    )
    same = dict.fromkeys(sides, 1)
    return relative("examples", times, same, same, why)


def measure_replicas(turns: int) -> list[Point]:
    """`lightnets train --dry-run` on logical devices that share this machine's cores."""

    def run(replicas: int) -> float:
        command = (
            "-m lightnets.cli train --dry-run --dataset digits --model mobilenet_v2 "
            f"--batch-size 64 --set train.devices=cpu:{replicas} --set model.image_size=64 "
            "--set data.resize_shorter=64"
        )
        output = subprocess.run(
            [sys.executable, *command.split()], check=True, capture_output=True, text=True
        ).stdout
        return float(re.search(r"Then (\d+) ms a step", output).group(1)) / 1e3

    sides = {n: (lambda n=n: run(n)) for n in (1, 2, 4)}
    times = common.interleave(sides, seconds=0, warm_up=0, min_turns=turns)
    why = "the global batch is the same and the replicas share the cores; what grows is the sum"
    same = dict.fromkeys(sides, 1)
    return relative("replicas", times, same, same, why)


def save(points: list[Point], folder: pathlib.Path) -> None:
    """Writes the points, keeping those of other axes, and draws all of them."""
    path = common.result_file("scaling", folder)
    new = {point.axis for point in points}
    old = [r for r in common.load(path) if r["axis"] not in new] if path.exists() else []
    rows = old + [
        {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in dataclasses.asdict(p).items()}
        for p in points
    ]
    common.write(path, [field.name for field in dataclasses.fields(Point)], rows)
    draw(rows, path.with_suffix(".png"))
    print(f"Wrote {path}")


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Time beside multiply-accumulates and bytes, one panel per axis."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    columns = min(len(axes_names), 4)
    lines = -(-len(axes_names) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(3.2 * columns, 3.0 * lines), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(axes_names) :]:
        panel.set_axis_off()
    for panel, name in zip(panels.flat, axes_names, strict=False):
        own = [row for row in rows if row["axis"] == name]
        x = [float(row["value"]) for row in own]
        styles = {"time": "o-", "macs": "--", "bytes": ":"}
        for (column, style), color in zip(
            styles.items(), ("#4878a8", "gray", "#c44e52"), strict=True
        ):
            y = [float(row[column]) for row in own]
            panel.loglog(x, y, style, color=color, label=column.replace("macs", "MACs"))
        panel.set_ylim(bottom=min(0.5, panel.get_ylim()[0]), top=max(2, panel.get_ylim()[1]))
        panel.minorticks_off()
        panel.set_xticks(x, [f"{value:,.10g}" if value < 1e5 else f"{value:.0e}" for value in x])
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=7)
        panel.tick_params(axis="x", rotation=30)
        panel.legend(fontsize=7)
    figure.supylabel("relative to the first point", fontsize=9)
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
            save(measure_replicas(2), args.out)
        else:
            save(measure_axis(axis, args.seconds), args.out)


if __name__ == "__main__":
    main()
