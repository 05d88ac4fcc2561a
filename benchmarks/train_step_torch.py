"""How fast is a training step beside torchvision's, eager and channels-last?

    python benchmarks/train_step_torch.py --torch-python ../venv-torch/bin/python

PyTorch runs in a process of its own environment; the two take turns.
"""

from __future__ import annotations

import argparse
import pathlib

import common
import torch_peer

# case: (registered name, torchvision's name)
NETS = {
    "mobilenet_v2": "mobilenet_v2",
    "shufflenet_v2": "shufflenet_v2_x1_0",
    "squeezenet": "squeezenet1_1",
}
TARGET = 1.5  # raised from 1.3, which all three reach


def measure(net: str, interpreter: str, batch: int, seconds: float) -> common.Row:
    """Times one network at 224 pixels."""
    import keras
    import models

    import keras_lightnets

    keras.backend.clear_session()
    ours = models.fit_steps(
        keras_lightnets.create_model(net, input_shape=(224, 224, 3)), size=224, batch=batch
    )
    with torch_peer.worker(
        interpreter, job="train", model=NETS[net], batch=batch, size=224, steps=3
    ) as (theirs, versions):
        times = common.interleave(
            {"keras_lightnets": ours, "torchvision": theirs}, seconds=seconds, warm_up=1
        )
    return common.compare(
        times,
        "keras_lightnets",
        "torchvision",
        case=f"train step {net}-224-b{batch}",
        target=TARGET,
        one_process=False,
        note=versions,
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--torch-python", help=torch_peer.HELP)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=40.0, help="per case")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS)
    args = parser.parse_args(arguments)
    interpreter = torch_peer.python(args.torch_python)
    if interpreter is None:
        parser.error("needs torch and torchvision: give --torch-python or set TORCH_PYTHON")
    for net in args.case:
        row = measure(net, interpreter, args.batch, args.seconds)
        common.save("train_step_torch", [row], args.out)


if __name__ == "__main__":
    main()
