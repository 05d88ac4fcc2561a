"""What a training step asks of a GPU, on paper: launches and bytes; needs none.

    python benchmarks/gpu_counts.py [--networks mobilenet_v2 ...]

Counts operations, bytes and transposes in the graph that TensorFlow would run on an H100, without
XLA (`tests/gpu_counts.py` says by which rule), 256 images a GPU, and divides the bytes by what a
card's memory moves: no step is faster than that. Writes `results/gpu_counts.csv`.
"""

from __future__ import annotations

import argparse

import common

from tests import gpu_counts, processes

BATCH = 256
# TB/s of memory, as NVIDIA's data sheets name them: H100 SXM, A100 SXM 80 GB.
CARDS = {"h100": 3.35, "a100": 2.04}
NETWORKS = {
    "mobilenet_v1": ("mobilenet_v1", {}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "shufflenet_v1_g3": ("shufflenet_v1", {}),
    "shufflenet_v1_g8": ("shufflenet_v1", {"groups": 8}),
    "shufflenet_v2": ("shufflenet_v2", {}),
    "squeezenet": ("squeezenet", {}),
}
# What differs from a step in bfloat16 on one GPU, of one network that shows it.
VARIANTS = {
    "float32": {"policy": "float32"},
    "float16": {"policy": "mixed_float16"},
    "recompute": {"recompute": True},
    "two GPUs": {"replicas": 2},
    "two GPUs, sync_bn": {"replicas": 2, "sync_bn": True},
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    args = parser.parse_args(arguments)
    rows = [counted(network, "bfloat16") for network in args.networks]
    if "mobilenet_v2" in args.networks:
        rows += [counted("mobilenet_v2", variant, **keys) for variant, keys in VARIANTS.items()]
    path = common.RESULTS / "gpu_counts.csv"
    known = common.load(path) if path.exists() else []
    merged = {(row["network"], row["variant"]): row for row in (*known, *rows)}
    common.write(path, list(rows[0]), merged.values())


def counted(network: str, variant: str, policy: str = "mixed_bfloat16", **keys) -> dict:
    """The row of a step."""
    family, options = NETWORKS[network]
    call = gpu_counts.launches_of_step
    launches = processes.call(
        call, family, policy, batch=BATCH, options=options, timeout=600, **keys
    )
    numbers = gpu_counts.summary(launches)
    row = {
        "network": network,
        "variant": variant,
        "launches": numbers["launches"],
        "transposes": numbers["transposes"],
        "gigabytes": f"{numbers['gigabytes']:.1f}",
    }
    for card, speed in CARDS.items():
        row[f"images_per_second_{card}"] = f"{BATCH * speed * 1e3 / numbers['gigabytes']:.0f}"
    print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
    return row


if __name__ == "__main__":
    main()
