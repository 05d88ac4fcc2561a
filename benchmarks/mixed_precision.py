"""What does mixed bfloat16 gain in a training step on this CPU?

    python benchmarks/mixed_precision.py

Needs a CPU with bfloat16 instructions (`avx512_bf16` or `amx_bf16` in /proc/cpuinfo): without
them bfloat16 is emulated and slow. Row 1: our bfloat16 against our float32. Row 2: our bfloat16
against `keras.applications` in bfloat16.
"""

from __future__ import annotations

import argparse
import pathlib

import common


def measure(batch: int, seconds: float) -> list[common.Row]:
    """Times MobileNet v2 at 224 pixels in both precisions."""
    import keras
    import models

    import keras_lightnets

    def ours() -> keras.Model:
        return keras_lightnets.create_model("mobilenet_v2", input_shape=(224, 224, 3))

    sides = {}
    for name, policy, build in (
        ("bfloat16", "mixed_bfloat16", ours),
        ("float32", "float32", ours),
        (
            "keras.applications bfloat16",
            "mixed_bfloat16",
            lambda: models.keras_application("mobilenet_v2", 224),
        ),
    ):
        keras.config.set_dtype_policy(policy)
        sides[name] = models.fit_steps(build(), size=224, batch=batch)
        sides[name]()  # traces under this policy
    times = common.interleave(sides, seconds=seconds, warm_up=1)
    case = f"train step mobilenet_v2-224-b{batch} bfloat16"
    return [
        common.compare(times, "bfloat16", peer, case=case, target=target)
        for peer, target in (("float32", 1.4), ("keras.applications bfloat16", None))
    ]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    common.save("mixed_precision", measure(args.batch, args.seconds), args.out)


if __name__ == "__main__":
    main()
