"""How fast is a training step beside `keras.applications` and beside plain Keras layers?

    python benchmarks/train_step.py [--case mobilenet_v2-224-b16 ...] [--seconds 40]

MobileNet v1 and v2 run against `keras.applications`, ShuffleNet v1 against the same network from
Keras' own `Conv2D(groups=...)` and `BatchNormalization`.
"""

from __future__ import annotations

import argparse
import pathlib

import common

# case: (registered name, image size in pixels, batch size, target ratio). A target that is met is
# raised: that of ShuffleNet v1 at 224 pixels was 6.
CASES = {
    "mobilenet_v2-224-b16": ("mobilenet_v2", 224, 16, 2.0),
    "mobilenet_v2-224-b32": ("mobilenet_v2", 224, 32, 2.0),
    "mobilenet_v1-224-b16": ("mobilenet_v1", 224, 16, 1.7),
    "mobilenet_v1-224-b32": ("mobilenet_v1", 224, 32, 1.7),
    "shufflenet_v1_g3-224-b16": ("shufflenet_v1", 224, 16, 6.5),
    "shufflenet_v1_g3-64-b32": ("shufflenet_v1", 64, 32, 6.0),
}


def measure(case: str, seconds: float) -> common.Row:
    """Times one case."""
    import keras
    import models

    import keras_lightnets

    name, size, batch, target = CASES[case]
    keras.backend.clear_session()
    ours = keras_lightnets.create_model(name, input_shape=(size, size, 3))
    if name.startswith("mobilenet"):
        peer_name, peer = "keras.applications", models.keras_application(name, size)
    else:
        peer_name, peer = "Keras layers", keras_lightnets.plain_keras(ours)
    # Short turns, so that both sides see the same state of a busy machine.
    steps = 3 if size < 224 else 32 // batch
    sides = {
        "keras_lightnets": models.fit_steps(ours, size=size, batch=batch, steps=steps),
        peer_name: models.fit_steps(peer, size=size, batch=batch, steps=steps),
    }
    times = common.interleave(sides, seconds=seconds, warm_up=1)
    return common.compare(
        times, "keras_lightnets", peer_name, case=f"train step {case}", target=target
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=40.0, help="per case")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    for case in args.case:
        common.save("train_step", [measure(case, args.seconds)], args.out)


if __name__ == "__main__":
    main()
