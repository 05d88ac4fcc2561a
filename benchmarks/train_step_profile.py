"""Which operations does a training step spend its time in?

    python benchmarks/train_step_profile.py [--case mobilenet_v2-224-b16 ...]

Traces steps of `fit` by TensorFlow's profiler and adds up the time of each type of operation, less
that of operations inside it. Two operations may run at the same time, so the sum can exceed the
wall time of the step. The profiler itself costs a few microseconds an operation.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import pathlib
import tempfile

import common

# case: (registered name, image size in pixels, batch size, dtype policy)
CASES = {
    "mobilenet_v2-224-b16": ("mobilenet_v2", 224, 16, "float32"),
    "mobilenet_v2-224-b16 bfloat16": ("mobilenet_v2", 224, 16, "mixed_bfloat16"),
    "mobilenet_v1-224-b16": ("mobilenet_v1", 224, 16, "float32"),
    "shufflenet_v1_g3-224-b16": ("shufflenet_v1", 224, 16, "float32"),
    "shufflenet_v1_g3-64-b32": ("shufflenet_v1", 64, 32, "float32"),
    "shufflenet_v2-224-b16": ("shufflenet_v2", 224, 16, "float32"),
    "squeezenet-224-b16": ("squeezenet", 224, 16, "float32"),
}
STEPS = 6
SHOWN = 12  # types of operations in the file; the rest is one row


@dataclasses.dataclass(frozen=True)
class Row:
    """One type of operation in one case."""

    case: str
    operation: str
    calls: float  # a step
    milliseconds: float  # a step, without operations inside it
    share: float  # of the sum over all operations


def measure(case: str) -> list[Row]:
    """Profiles one case."""
    import keras
    import models
    import tensorflow as tf

    import keras_lightnets

    name, size, batch, policy = CASES[case]
    keras.backend.clear_session()
    keras.config.set_dtype_policy(policy)
    model = keras_lightnets.create_model(name, input_shape=(size, size, 3))
    train = models.fit_steps(model, size=size, batch=batch, steps=STEPS - 1)
    train()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        train()
        tf.profiler.experimental.stop()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        calls, seconds = self_times(path)
    return rows(case, calls, seconds)


def self_times(path: pathlib.Path) -> tuple[collections.Counter, collections.Counter]:
    """Calls and seconds of each type of operation in a trace."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    calls, seconds = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            events = []
            for event in line.events:
                # An operation's event is called "<node>:<type>", others have "::" or no colon.
                node, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if node and not node.endswith(":") and kind.isidentifier():
                    end = event.offset_ps + event.duration_ps
                    events.append((event.offset_ps, -end, kind))
            open_events: list[tuple[int, str]] = []  # (end, type) of those around the present one
            for start, negative_end, kind in sorted(events):
                while open_events and open_events[-1][0] <= start:
                    open_events.pop()
                duration = (-negative_end - start) / 1e12
                if open_events:
                    seconds[open_events[-1][1]] -= duration
                seconds[kind] += duration
                calls[kind] += 1
                open_events.append((-negative_end, kind))
    return calls, seconds


def rows(case: str, calls: collections.Counter, seconds: collections.Counter) -> list[Row]:
    """The longest-running types of operations, and one row for the rest."""
    total = sum(seconds.values())
    shown = [kind for kind, _ in seconds.most_common(SHOWN)]
    parts = {kind: [kind] for kind in shown}
    parts["all others"] = [kind for kind in seconds if kind not in shown]
    return [
        Row(
            case=case,
            operation=label,
            calls=sum(calls[kind] for kind in kinds) / STEPS,
            milliseconds=sum(seconds[kind] for kind in kinds) / STEPS * 1e3,
            share=sum(seconds[kind] for kind in kinds) / total,
        )
        for label, kinds in parts.items()
    ]


def show(found: list[Row]) -> None:
    """One line per row, for whoever watches."""
    for row in found:
        print(
            f"{row.case}: {row.operation} {row.milliseconds:.1f} ms ({row.share:.0%}), "
            f"{row.calls:.0f} calls",
            flush=True,
        )


def save(new: list[Row], folder: pathlib.Path, what: str = "train_step_profile") -> None:
    """Writes the rows, keeping those of other cases."""
    path = common.result_file(what, folder)
    cases = {row.case for row in new}
    old = [r for r in common.load(path) if r["case"] not in cases] if path.exists() else []
    written = [
        {
            key: f"{value:.4g}" if isinstance(value, float) else value
            for key, value in dataclasses.asdict(row).items()
        }
        | {"versions": common.versions()}
        for row in new
    ]
    columns = [*(field.name for field in dataclasses.fields(Row)), "versions"]
    common.write(path, columns, old + written)
    print(f"Wrote {path}")


def main(arguments: list[str] | None = None) -> None:
    """Runs the profiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for case in args.case:
        found = measure(case)
        show(found)
        save(found, args.out)


if __name__ == "__main__":
    main()
