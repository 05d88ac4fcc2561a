"""Decides when a request meets the graph: at once, or merged with others into a batch."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Protocol

import numpy as np

from keras_lightnets.serving.server.metrics import Metrics

Arrays = dict[str, np.ndarray]


class Runnable(Protocol):
    """What a scheduler needs of a loaded version; `Servable` has it."""

    name: str

    def run(self, signature: Signed, inputs: Arrays) -> Arrays: ...


class Signed(Protocol):
    """What a scheduler needs of a signature."""

    name: str

    @property
    def batched(self) -> bool: ...


class Scheduler(Protocol):
    """Runs inputs and delivers outputs through a future.

    Cancelling the future of a request that has not started keeps it from running.
    """

    def submit(
        self, servable: Runnable, signature: Signed, inputs: Arrays
    ) -> concurrent.futures.Future[Arrays]: ...

    def close(self) -> None: ...


def timed_run(servable: Runnable, signature: Signed, inputs: Arrays, metrics: Metrics) -> Arrays:
    """`servable.run`, with its time in the metrics."""
    start = time.perf_counter()
    try:
        return servable.run(signature, inputs)
    finally:
        elapsed_us = (time.perf_counter() - start) * 1e6
        metrics.runtime.observe(servable.name, "Predict", "TF1", value=elapsed_us)


class DirectScheduler:
    """Runs each request by itself, `threads` at a time."""

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "serving-run")
        self._metrics = metrics

    def submit(
        self, servable: Runnable, signature: Signed, inputs: Arrays
    ) -> concurrent.futures.Future[Arrays]:
        """See `Scheduler`."""
        return self._pool.submit(timed_run, servable, signature, inputs, self._metrics)

    def close(self) -> None:
        """Finishes what runs and drops what waits."""
        self._pool.shutdown(cancel_futures=True)
