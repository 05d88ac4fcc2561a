"""How long one image takes in each network of the first table of `lightnets list`.

    python benchmarks/networks.py

All take turns, image by image, so that what else the machine does meets all of them; what counts is
the median. The weights are random: they do not matter for the time.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import statistics
from collections.abc import Callable

import common
import numpy as np

from lightnets.commands.list import FIRST

COLUMNS = ["network", "milliseconds", "low", "high", "turns", "date", "versions"]


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes `networks-<machine>.csv`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    import keras_lightnets

    image = np.full((1, 224, 224, 3), 127, np.float32)

    def side(name: str) -> Callable[[], None]:
        model = keras_lightnets.create_model(name, input_shape=(224, 224, 3))
        classify = keras_lightnets.inference_function(model)

        def one_image() -> None:
            classify(image).numpy()

        return one_image

    sides = {name: side(name) for name in FIRST}
    turns = common.interleave(sides, seconds=args.seconds, warm_up=3)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    rows = []
    for name, seconds in turns.seconds.items():
        low, middle, high = (f"{1e3 * part:.3g}" for part in statistics.quantiles(seconds, n=4))
        row = dict(zip(COLUMNS, (name, middle, low, high, len(seconds), today), strict=False))
        rows.append(row | {"versions": common.versions()})
        print(f"{name}: {middle} ms ({low} to {high}, {len(seconds)} turns)")
    common.write(common.result_file("networks", args.out), COLUMNS, rows)


if __name__ == "__main__":
    main()
