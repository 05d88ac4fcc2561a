"""PyTorch's side of `gpu_run.py`: the same pass of torchvision's networks; needs nothing else.

    python gpu_torch.py [--batch 256] [--size 224] [--seconds 150] [--out FILE.csv]

Forward and backward pass without the update, channels last, in bfloat16 (autocast) and float32,
eager and by torch.compile, on the GPU if there is one; the rows are those of `gpu_run.py`, but
memory is all that was allocated. On a CPU it shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import torchvision

NETWORKS = ("mobilenet_v2", "shufflenet_v2_x1_0", "squeezenet1_0")
FIELDS = ("step", "device", "ms", "images_per_second", "compile_s", "temporary_gib")


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=150, help="after which none is begun")
    parser.add_argument("--out", type=pathlib.Path, help="a CSV file")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")  # TF32, which XLA takes, too
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for network in NETWORKS:
            for kind in ("eager", "compiled"):
                name = f"{network}-{str(dtype).removeprefix('torch.')}-{kind}-b{args.batch}"
                if time.monotonic() > end:
                    print(f"no time left for {name}")
                    continue
                row = {"step": name, **measure(network, dtype, kind, args, device)}
                print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
                rows.append(row)
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


def step_of(network: str, dtype: torch.dtype, kind: str, args, device) -> Callable[[], None]:
    """Returns what runs a pass and waits for its end."""
    net = getattr(torchvision.models, network)(weights=None)
    net = net.to(device, memory_format=torch.channels_last).train()
    images = torch.rand(args.batch, 3, args.size, args.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (args.batch,), device=device)

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            return torch.nn.functional.cross_entropy(net(images), labels)

    forward = torch.compile(loss) if kind == "compiled" else loss

    def step() -> None:
        net.zero_grad(set_to_none=True)
        forward().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure(network: str, dtype: torch.dtype, kind: str, args, device) -> dict[str, object]:
    """Times a pass, its first call apart."""
    began = time.monotonic()
    step = step_of(network, dtype, kind, args, device)
    step()
    first, times = time.monotonic() - began, []
    while len(times) < 20 and sum(times) < 8:
        began = time.monotonic()
        step()
        times.append(time.monotonic() - began)
    median = statistics.median(times)
    cuda = device.type == "cuda"
    values = (median * 1e3, args.batch / median, first)
    values += (torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    device_name = torch.cuda.get_device_name() if cuda else "cpu"
    return dict(zip(FIELDS[1:], (device_name, *(f"{v:.2f}" for v in values)), strict=True))


if __name__ == "__main__":
    main()
