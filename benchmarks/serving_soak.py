"""Does the embedded server stay whole under many clients, some of which send garbage?

    python benchmarks/serving_soak.py [--seconds 60] [--clients 16] [--size 224]

Exports `ShuffleNetV1(groups=3)`, serves it in a process of its own, and asks it for 224-pixel
PNGs, one more request in ten being garbage: first with one client, then with many, whose server's
memory is looked at four times, then while a new version takes over. Clients and server share
the machine's cores.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import common
from serving_load import LoadReport, noise_png, run_load

from keras_lightnets.serving import Client

GARBAGE = [
    b"{bad json",
    b'{"signature_name": "serve_bytes", "inputs": [{"b64": "?"}]}',
    b'{"inputs": [[1, 2]]}',
    b'{"signature_name": "none", "inputs": [1]}',
]

GOOD, BAD, SWITCH = "good requests beside garbage", "garbage", "good requests in a version switch"
RATE, LATENCY, MEMORY = "images/s", "latency", "server memory"


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="with many clients")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="of the network's input, pixels")
    parser.add_argument("--out", type=pathlib.Path, default=common.RESULTS, help="result folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        export(folder, args.size)
        process, url = serve(folder)
        try:
            rows = soak(folder, process.pid, url, args)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    if code:
        raise SystemExit(f"The server ended with exit code {code}")
    common.save("serving_soak", rows, args.out)


def export(folder: pathlib.Path, size: int) -> None:
    """Writes the bundle."""
    import keras_lightnets

    model = keras_lightnets.ShuffleNetV1((size, size, 3), include_preprocessing=True, classes=10)
    keras_lightnets.export_saved_model(model, folder, name="net")


def serve(folder: pathlib.Path) -> tuple[subprocess.Popen, str]:
    """Starts the embedded server and waits for its address."""
    command = [sys.executable, "-m", "lightnets.cli", "serve", str(folder), "--engine", "embedded"]
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


def soak(folder: pathlib.Path, pid: int, url: str, args: argparse.Namespace) -> list[common.Row]:
    """One client, many clients, many clients during a version switch."""
    alone, _ = load(url, 1, args.seconds / 6, args.size)
    memory: list[float] = []
    quarters = [
        threading.Timer(args.seconds * quarter / 4, lambda: memory.append(resident_mib(pid)))
        for quarter in (1, 2, 3)
    ]
    for timer in quarters:
        timer.start()
    many, statuses = load(url, args.clients, args.seconds, args.size)
    memory.append(resident_mib(pid))
    switch, _ = load(
        url, args.clients, args.seconds / 4, args.size, lambda: new_version(folder, url)
    )

    def delivered(case: str, unit: str, good: float, total: float) -> common.Row:
        return row(case, unit, "as promised", "sent", good, total, good / total, target=1.0)

    percentiles = [many.percentile_ms(percent) for percent in (50, 99)]
    mib = [memory[0] / each for each in memory]
    first, last = memory[0], memory[-1]
    rate, single = many.images_per_second, alone.images_per_second
    clients = f"{args.clients} clients"
    return [
        delivered(GOOD, "requests", len(many.latencies_ms), requests(many)),
        delivered(BAD, "requests", statuses[400], statuses.total()),
        delivered(SWITCH, "requests", len(switch.latencies_ms), requests(switch)),
        row(RATE, "images/s", clients, "1 client", rate, single, rate / single),
        row(LATENCY, "ms", "p50", "p99", *percentiles, percentiles[1] / percentiles[0]),
        row(MEMORY, "MiB", "at the end", "after a quarter", last, first, mib[-1], mib),
    ]


def row(
    case: str,
    unit: str,
    ours: str,
    peer: str,
    ours_value: float,
    peer_value: float,
    ratio: float,
    ratios: list[float] | None = None,
    target: float | None = None,
) -> common.Row:
    """A row of a single turn; `ratios` of several looks give its range."""
    ratios = ratios or [ratio]
    made = common.Row(
        case=case,
        ours=ours,
        peer=peer,
        ratio=ratio,
        low=min(ratios),
        high=max(ratios),
        best=max(ratios),
        processor=None,
        ours_value=ours_value,
        peer_value=peer_value,
        unit=unit,
        turns=len(ratios),
        target=target,
    )
    common.print_row(made)
    return made


def requests(report: LoadReport) -> int:
    """Returns how many were sent."""
    return len(report.latencies_ms) + sum(report.errors.values())


def load(
    url: str, clients: int, seconds: float, size: int, event: Callable[[], None] = lambda: None
) -> tuple[LoadReport, collections.Counter[int]]:
    """Good clients at full speed, beside them one that sends garbage; then `event` happens."""
    stop = threading.Event()
    statuses: collections.Counter[int] = collections.Counter()
    start = Counted.sent
    others = [
        threading.Thread(target=send_garbage, args=(url, stop, statuses, start)),
        threading.Timer(seconds / 4, event),
    ]
    for thread in others:
        thread.start()
    report = run_load(
        lambda: Counted(url, "net", retries=0),
        [noise_png(size)],
        clients=clients,
        seconds=seconds,
    )
    stop.set()
    for thread in others:
        thread.join()
    for message, count in report.errors.items():
        print(f"{count} x {message}")
    return report, statuses


def new_version(folder: pathlib.Path, url: str) -> None:
    """Publishes a copy of version 1 as version 2, and waits until it has taken over."""
    shutil.copytree(folder / "net" / "1", folder / "net" / ".2")
    (folder / "net" / ".2").rename(folder / "net" / "2")
    with Client(url, "net") as client:
        while [row["state"] for row in client.status()] != ["AVAILABLE", "END"]:
            time.sleep(0.1)
    print("Version 2 has taken over")


def send_garbage(
    url: str, stop: threading.Event, statuses: collections.Counter[int], start: int
) -> None:
    """Sends one request of garbage for every nine good ones."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    while not stop.wait(0.001):
        if statuses.total() * 9 >= Counted.sent - start:
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
