"""Does the embedded server stay whole under many clients, some of which send garbage?

    python -m benchmarks.serving_soak [--seconds 60] [--clients 16] [--size 224]

Exports `ShuffleNetV1(groups=3)`, serves it in a process of its own, and prints a row of CSV:
requests, failures, throughput, latencies, and the server's memory halfway and at the end. One
request in ten is garbage. Clients and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import collections
import csv
import http.client
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading

from keras_lightnets.serving import Client
from keras_lightnets.serving.load import noise_png, run_load

BATCHING = """
max_batch_size { value: 16 }
batch_timeout_micros { value: 0 }
num_batch_threads { value: 2 }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
allowed_batch_sizes: 16
"""

GARBAGE = [
    b"{bad json",
    b'{"signature_name": "serve_bytes", "inputs": [{"b64": "?"}]}',
    b'{"inputs": [[1, 2]]}',
    b'{"signature_name": "none", "inputs": [1]}',
]


def main() -> None:
    """Runs the soak and prints its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="of the network's input, pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export(pathlib.Path(folder), args.size)
        process, url = serve(folder)
        try:
            row = soak(url, process.pid, args)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    writer = csv.DictWriter(sys.stdout, [*row, "exit_code"])
    writer.writeheader()
    writer.writerow(row | {"exit_code": code})


def export(folder: pathlib.Path, size: int) -> None:
    """Writes the bundle."""
    import keras_lightnets

    model = keras_lightnets.ShuffleNetV1((size, size, 3), include_preprocessing=True, classes=10)
    (folder / "batching_parameters.txt").write_text(BATCHING)
    keras_lightnets.export_saved_model(model, folder, name="net")


def serve(folder: str) -> tuple[subprocess.Popen, str]:
    """Starts the embedded server and waits for its address."""
    command = [sys.executable, "-m", "training.cli", "serve", folder, "--engine", "embedded"]
    process = subprocess.Popen(
        [*command, "--rest-port", "0", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if match := re.match(r"Ready at (\S+)", line):
            return process, match[1]
    raise RuntimeError(f"The server ended with exit code {process.wait()}")


class Counted(Client):
    """Counts the requests sent, so that garbage can keep its share of them."""

    sent = 0

    def predict(self, *args: object) -> dict:
        Counted.sent += 1
        return super().predict(*args)


def soak(url: str, pid: int, args: argparse.Namespace) -> dict[str, object]:
    """Good clients at full speed, and beside them one that sends garbage."""
    stop = threading.Event()
    statuses: collections.Counter[int] = collections.Counter()
    memory: list[float] = []
    garbage = threading.Thread(target=send_garbage, args=(url, stop, statuses))
    halfway = threading.Timer(args.seconds / 2, lambda: memory.append(resident_mib(pid)))
    garbage.start()
    halfway.start()
    report = run_load(
        lambda: Counted(url, "net", retries=0),
        [noise_png(args.size)],
        clients=args.clients,
        seconds=args.seconds,
    )
    stop.set()
    garbage.join()
    halfway.join()
    return {
        "clients": args.clients,
        "seconds": round(report.seconds, 1),
        "input_pixels": args.size,
        "good_requests": len(report.latencies_ms),
        "failed_good_requests": sum(report.errors.values()),
        "garbage_requests": statuses.total(),
        "garbage_answered_400": statuses[400],
        "images_per_second": round(report.images_per_second, 1),
        **{f"p{p}_ms": round(report.percentile_ms(p), 1) for p in (50, 95, 99)},
        "server_mib_halfway": round(memory[0]),
        "server_mib_end": round(resident_mib(pid)),
        "cores": os.cpu_count(),
    }


def send_garbage(url: str, stop: threading.Event, statuses: collections.Counter[int]) -> None:
    """Sends one request of garbage for every nine good ones."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    while not stop.wait(0.001):
        if statuses.total() * 9 >= Counted.sent:
            continue
        connection.request("POST", "/v1/models/net:predict", random.choice(GARBAGE))
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
    connection.close()


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    main()
