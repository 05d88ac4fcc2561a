"""Which operations does the input pipeline spend its time in?

    python benchmarks/data_pipeline_profile.py

Traces batches of the pipeline that `data_pipeline.py` times, by TensorFlow's profiler, and adds up
the time of each type of operation, over all threads. The profiler itself costs a few microseconds
an operation, so small operations look larger than they are.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import tempfile

import common
import data_pipeline
import train_step_profile

WHAT = "data_pipeline_profile"


def measure(case: str, images: int) -> list[train_step_profile.Row]:
    """Profiles some batches."""
    import pictures
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as temporary:
        folder = pictures.jpeg_folder(
            pathlib.Path(temporary) / "jpeg", images, quality=data_pipeline.CASES[case]
        )
        batches = iter(data_pipeline.ours(folder))
        for _ in itertools.islice(batches, 8):
            pass
        trace = pathlib.Path(temporary) / "trace"
        tf.profiler.experimental.start(str(trace))
        for _ in itertools.islice(batches, train_step_profile.STEPS):
            pass
        tf.profiler.experimental.stop()
        (path,) = trace.rglob("*.xplane.pb")
        calls, seconds = train_step_profile.self_times(path)
    return train_step_profile.rows(f"{data_pipeline.BATCH} images, {case}", calls, seconds)


def main(arguments: list[str] | None = None) -> None:
    """Runs the profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    found = [row for case in data_pipeline.CASES for row in measure(case, args.images)]
    train_step_profile.show(found)
    train_step_profile.save(found, args.out, WHAT)


if __name__ == "__main__":
    main()
