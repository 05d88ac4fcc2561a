"""Batching parameters from a measurement: how large batches should be on this machine.

A server gains from larger batches until the processor is busy; beyond that they only make each
answer later. So every batch size is run with every number of threads, and the smallest and
fewest that come within `_MARGIN` of the best throughput are taken. Then clients that wait for
their answers are put in front of the batcher, once for each time that a request may wait for
others, and the shortest wait within the same margin is taken.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import pathlib
import platform
import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_lightnets.serving import warmup
from keras_lightnets.serving.server.batcher import Batcher
from keras_lightnets.serving.server.batching_parameters import BatchingParameters
from keras_lightnets.serving.server.metrics import Metrics
from keras_lightnets.serving.signatures import IMAGE_BYTES

TIMEOUTS_US = (0, 1000, 2000, 5000)

# Throughputs closer than this count as equal.
_MARGIN = 0.05
# How often each setting is measured.
_TURNS = 2
# Share of the time for the batch sizes; the rest is for the waits.
_BATCHES_SHARE = 0.7


@dataclasses.dataclass(frozen=True)
class Throughput:
    """What one setting gave.

    Attributes:
        batch_size: Images in a batch.
        threads: Batches run at once.
        images_per_second: Over all threads.
        ms: Median time of a batch.
    """

    batch_size: int
    threads: int
    images_per_second: float
    ms: float


@dataclasses.dataclass(frozen=True)
class Wait:
    """What clients saw with one time that a request may wait for others.

    Attributes:
        timeout_us: That time, microseconds.
        images_per_second: Over all clients, each sending one image at a time.
        p95_ms: Latency that 95 % of the requests did not exceed.
    """

    timeout_us: int
    images_per_second: float
    p95_ms: float


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The measurement and what it says."""

    parameters: BatchingParameters
    throughputs: tuple[Throughput, ...]
    waits: tuple[Wait, ...]
    clients: int
    machine: str
    date: str

    def to_dict(self) -> dict[str, Any]:
        """For `tuning.json`."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """Tables in Markdown."""
        lines = [
            f"Measured on {self.machine}, {self.date}, by `{IMAGE_BYTES}` on held-out files:",
            "",
            "| batch | threads | images/s | ms a batch |",
            "|---|---|---|---|",
            *(
                f"| {row.batch_size} | {row.threads} | {row.images_per_second:.0f} | {row.ms:.1f} |"
                for row in self.throughputs
            ),
            "",
            f"{self.clients} clients, batches of up to {self.parameters.max_batch_size}:",
            "",
            "| wait, microseconds | images/s | p95, ms |",
            "|---|---|---|",
            *(
                f"| {row.timeout_us} | {row.images_per_second:.0f} | {row.p95_ms:.1f} |"
                for row in self.waits
            ),
        ]
        return "\n".join(lines)


def choose_batch(rows: Sequence[Throughput]) -> Throughput:
    """Returns the smallest batch, and for it the fewest threads, that is as good as the best."""
    best = max(row.images_per_second for row in rows)
    good = [row for row in rows if row.images_per_second >= (1 - _MARGIN) * best]
    return min(good, key=lambda row: (row.batch_size, row.threads))


def choose_wait(rows: Sequence[Wait]) -> Wait:
    """Returns the shortest wait that is as good as the best."""
    best = max(row.images_per_second for row in rows)
    good = [row for row in rows if row.images_per_second >= (1 - _MARGIN) * best]
    return min(good, key=lambda row: row.timeout_us)


def tune(
    saved_model: pathlib.Path,
    files: Sequence[bytes],
    *,
    seconds: float,
    least_batch: int = 1,
    batch_sizes: Sequence[int] = warmup.BATCH_SIZES,
    progress: Callable[[str], None] = lambda line: None,
) -> Tuning:
    """Measures an exported model in a Session, as a server runs it.

    Args:
        saved_model: The version's directory.
        files: Image files as clients will send them.
        seconds: About how long it may take.
        least_batch: What `max_batch_size` must not be below, whatever is measured.
        batch_sizes: To try.
        progress: Called with a line for each setting.
    """
    from keras_lightnets.serving.server.servable import Servable

    servable = Servable("tuned", 1, saved_model)
    try:
        signature = servable.signature(IMAGE_BYTES)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        settings = [(b, t) for t in _thread_counts(cores or 1) for b in sorted(set(batch_sizes))]
        each = _BATCHES_SHARE * seconds / len(settings) / _TURNS
        best: dict[Any, Any] = {}
        for turn, (batch_size, threads) in itertools.product(range(_TURNS), settings):
            batch = {"image_bytes": _batch(files, batch_size)}
            row = _throughput(
                lambda batch=batch: servable.run(signature, batch), batch_size, threads, each
            )
            best[batch_size, threads] = _faster(best.get((batch_size, threads)), row)
            progress(
                f"  turn {turn + 1}, batch {batch_size:>2}, {threads} thread{'s' * (threads > 1)}: "
                f"{row.images_per_second:.0f} images/s, {row.ms:.1f} ms a batch"
            )
        rows = [best[setting] for setting in settings]
        chosen = choose_batch(rows)
        largest = max(chosen.batch_size, least_batch)
        parameters = BatchingParameters(
            max_batch_size=largest,
            max_enqueued_batches=100,
            threads=chosen.threads,
            allowed_batch_sizes=tuple(
                sorted({size for size in batch_sizes if size <= largest} | {largest})
            ),
        )
        clients = max(4, chosen.batch_size)
        each = (1 - _BATCHES_SHARE) * seconds / len(TIMEOUTS_US) / _TURNS
        for turn, timeout_us in itertools.product(range(_TURNS), TIMEOUTS_US):
            setting = dataclasses.replace(parameters, batch_timeout_us=timeout_us)
            wait = _wait(servable, signature, files, setting, clients, each)
            best[timeout_us] = _faster(best.get(timeout_us), wait)
            progress(
                f"  turn {turn + 1}, {clients} clients, wait {timeout_us} us: "
                f"{wait.images_per_second:.0f} images/s, p95 {wait.p95_ms:.1f} ms"
            )
        waits = [best[timeout_us] for timeout_us in TIMEOUTS_US]
    finally:
        servable.close()
    return Tuning(
        dataclasses.replace(parameters, batch_timeout_us=choose_wait(waits).timeout_us),
        tuple(rows),
        tuple(waits),
        clients,
        f"{_processor()}, {cores} core{'s' * (cores != 1)}",
        datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _faster(before: Any, now: Any) -> Any:
    """Of two turns the faster one counts: what else runs on the machine only slows down."""
    return max((row for row in (before, now) if row), key=lambda row: row.images_per_second)


def _thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    return sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})


def _batch(files: Sequence[bytes], size: int, start: int = 0) -> np.ndarray:
    chosen = itertools.islice(itertools.cycle(files), start, start + size)
    return np.array(list(chosen), object)


def _throughput(
    run: Callable[[], Any], batch_size: int, threads: int, seconds: float
) -> Throughput:
    run()  # the first one plans the graph for this size
    times: list[float] = []
    start = time.perf_counter()

    def work() -> None:
        done = 0
        while done < 2 or time.perf_counter() < start + seconds:
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
            done += 1

    _in_threads(work, threads)
    elapsed = time.perf_counter() - start
    rate = batch_size * len(times) / elapsed
    return Throughput(batch_size, threads, round(rate, 2), round(1e3 * statistics.median(times), 3))


def _wait(
    servable: Any,
    signature: Any,
    files: Sequence[bytes],
    parameters: BatchingParameters,
    clients: int,
    seconds: float,
) -> Wait:
    batcher = Batcher(parameters, Metrics())
    times: list[float] = []
    numbers = itertools.count()
    start = time.perf_counter()

    def work() -> None:
        number = next(numbers)
        done = 0
        while done < 2 or time.perf_counter() < start + seconds:
            inputs = {"image_bytes": _batch(files, 1, (number + done) % len(files))}
            before = time.perf_counter()
            batcher.submit(servable, signature, inputs).result()
            times.append(time.perf_counter() - before)
            done += 1

    try:
        _in_threads(work, clients)
    finally:
        batcher.close()
    elapsed = time.perf_counter() - start
    p95 = sorted(times)[int(0.95 * (len(times) - 1))]
    return Wait(parameters.batch_timeout_us, round(len(times) / elapsed, 2), round(1e3 * p95, 3))


def _in_threads(work: Callable[[], None], count: int) -> None:
    """Runs `work` in some threads; raises what one of them raised."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*)$", info.read_text(), re.M) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
