"""Which operations does a request to an exported SavedModel spend its time in?

    python benchmarks/serving_profile.py [--net mobilenet_v2 shufflenet_v1]

A table, not a comparison: the operations of one request, as the Session's own trace times them,
median of several requests. With parts of a batch side by side, an operation's time includes that
in which the other part had the processor.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from collections import Counter, defaultdict

import common
import serving

COLUMNS = ("network", "precision", "batch", "operation", "count", "ms", "share")


def profile(served: serving.Served, requests: int = 10) -> list[tuple[str, int, float, float]]:
    """Returns (operation, how many, milliseconds, share of all) of a request, longest first."""
    import tensorflow as tf

    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.SOFTWARE_TRACE)
    times = defaultdict(list)
    for number in range(requests + 3):  # the first three warm up
        trace = tf.compat.v1.RunMetadata()
        feed = {served.input: served.images}
        served.session.run(served.output, feed, options=options, run_metadata=trace)
        total, counts = Counter(), Counter()
        for device in trace.step_stats.dev_stats:
            for node in device.node_stats:
                # "name = Operation(inputs)"
                operation = node.timeline_label.split(" = ")[-1].split("(")[0]
                counts[operation] += 1
                total[operation] += node.op_end_rel_micros - node.op_start_rel_micros
        if number >= 3:
            for operation, microseconds in total.items():
                times[operation].append(microseconds / 1e3)
    medians = {operation: statistics.median(values) for operation, values in times.items()}
    everything = sum(medians.values())
    rows = [(name, counts[name], ms, ms / everything) for name, ms in medians.items()]
    return sorted(rows, key=lambda row: -row[2])


def main(arguments: list[str] | None = None) -> None:
    """Writes `serving_profile-<machine>.csv`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=common.NETS, default=list(common.NETS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    import models

    import keras_lightnets

    path = common.result_file("serving_profile", args.out)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for net in args.net:
            model = models.randomize(keras_lightnets.create_model(net))
            bundle = serving.write_bundle(model, "float32", pathlib.Path(folder, net))
            for batch in args.batch:
                rows = profile(serving.Served(bundle, batch))
                # What takes less than half a percent is left out.
                for name, count, ms, share in [row for row in rows if row[3] >= 0.005]:
                    line = (net, "float32", batch, name, count, f"{ms:.3g}", f"{share:.3f}")
                    lines.append(dict(zip(COLUMNS, line, strict=True)))
                    print(*line, flush=True)
    common.write(path, list(COLUMNS), lines)
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
