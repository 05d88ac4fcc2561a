"""The PyTorch side of a comparison, run by the Python of its own environment.

Reads one JSON job from its arguments, then answers each line on standard input by the seconds
that one turn of the job took. So it can take turns with TensorFlow, which lives in the other
process; while one side runs, the other only waits for a line.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torchvision


def train(model: str, batch: int, size: int, steps: int):
    """Eager training steps, channels-last, momentum SGD, cross-entropy."""
    net = getattr(torchvision.models, model)(weights=None).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,))

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        return (time.perf_counter() - start) / steps

    return turn


def infer(model: str, batch: int, size: int, steps: int):
    """Eager inference, channels-last."""
    net = getattr(torchvision.models, model)(weights=None).to(memory_format=torch.channels_last)
    net.eval()
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)

    def turn() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(steps):
                net(images)
        return (time.perf_counter() - start) / steps

    return turn


def loader(folder: str, batch: int, size: int, workers: int):
    """One epoch of `ImageFolder` with PIL: random-resized crop, flip, tensor, normalization."""
    transforms = torchvision.transforms
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = torchvision.datasets.ImageFolder(folder, transform)
    batches = torch.utils.data.DataLoader(
        data,
        batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )

    def turn() -> float:
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in batches)
        return (time.perf_counter() - start) / count

    return turn


JOBS = {"train": train, "infer": infer, "loader": loader}

if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    turn = JOBS[job.pop("job")](**job)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    for _ in sys.stdin:
        print(turn(), flush=True)
