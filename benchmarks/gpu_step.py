"""Writes the training step of each network as XLA gets it for a GPU; needs none.

    python benchmarks/gpu_step.py FOLDER [--batch 256] [--size 224] [--networks mobilenet_v2 ...]

FOLDER gets `NETWORK-POLICY-bBATCH.hlo.gz` for each network and type, which `gpu_run.py` compiles
and times where a GPU is, and `numbers.hlo.gz` with `numbers.npz`: a small step in float32 with its
arguments and what a CPU makes of them. Forward and backward pass; the update is not part of it.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib

import common  # noqa: F401 (quietens TensorFlow, and finds the checkout)
import numpy as np
import tensorflow as tf

from tests import gpu_steps

NETWORKS = ("mobilenet_v2", "shufflenet_v2", "shufflenet_v1", "mobilenet_v1", "squeezenet")
POLICIES = ("mixed_bfloat16", "float32")
SMALL, FEW = 64, 8  # pixels and images of the step whose numbers are compared


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write_numbers(args.folder, args.networks[0])
    for network in args.networks:
        for policy in POLICIES:
            model = gpu_steps.network(network, policy, args.size, classes=1000)
            function, specs = gpu_steps.backward_pass(model, policy, args.batch)
            write(args.folder / f"{network}-{policy}-b{args.batch}.hlo.gz", function, specs)


def write(path: pathlib.Path, function, specs) -> None:
    """Writes the HLO of a function for a GPU."""
    text = function.experimental_get_compiler_ir(*specs)(stage="hlo", platform_name="GPU")
    path.write_bytes(gzip.compress(text.encode()))
    print(path, flush=True)


def write_numbers(folder: pathlib.Path, network: str) -> None:
    """Writes a small step, its arguments, and its outputs on the CPU."""
    tf.keras.utils.set_random_seed(0)
    model = gpu_steps.network(network, "float32", SMALL, classes=10)
    function, specs = gpu_steps.backward_pass(model, "float32", FEW)
    random = np.random.default_rng(0)
    given = [
        random.integers(0, 256, (FEW, SMALL, SMALL, 3)).astype("uint8"),
        np.eye(10, dtype="float32")[random.integers(0, 10, FEW)],
        np.ones(FEW, "float32"),
        *(v.numpy() for v in model.variables),
    ]
    answers = [answer.numpy() for answer in tf.nest.flatten(function(*given))]
    given.append(np.float32(1))  # the scale of the loss, which the function holds
    write(folder / "numbers.hlo.gz", function, specs)
    np.savez(
        folder / "numbers.npz",
        **{f"given{number:04}": value for number, value in enumerate(given)},
        **{f"answer{number:04}": value for number, value in enumerate(answers)},
    )


if __name__ == "__main__":
    main()
