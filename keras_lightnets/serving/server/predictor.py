"""What both APIs do with a request: admit it, find its version, run it, time it, count it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.manager import Lease, ModelManager
from keras_lightnets.serving.server.metrics import Gauge, Metrics
from keras_lightnets.serving.server.scheduler import Arrays, Scheduler
from keras_lightnets.serving.server.servable import Signature

log = logging.getLogger("keras_lightnets.serving")


class Predictor:
    """The way from a request to the graph, shared by REST and gRPC.

    Args:
        manager: Holds the loaded versions.
        scheduler: Runs them.
        metrics: Counts requests.
        max_requests: Requests worked on at once; one more is refused.
    """

    def __init__(
        self, manager: ModelManager, scheduler: Scheduler, metrics: Metrics, max_requests: int
    ) -> None:
        self.manager, self.metrics = manager, metrics
        self._scheduler, self._max_requests = scheduler, max_requests
        self._in_flight = 0
        self._lock = threading.Lock()
        metrics.all.append(
            Gauge(
                "lightnets_serving_requests_in_flight",
                "Requests being worked on.",
                lambda: self._in_flight,
            )
        )

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request as in flight.

        Raises:
            ServingError: The server works on as many requests as it may.
        """
        with self._lock:
            if self._in_flight >= self._max_requests:
                self.metrics.refused.add("requests")
                raise errors.ServingError(
                    "UNAVAILABLE",
                    f"The server is at its limit of {self._max_requests} requests: try again",
                )
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def submit(
        self, lease: Lease, signature: Signature, inputs: Arrays
    ) -> concurrent.futures.Future[Arrays]:
        """Starts a run that keeps its version loaded until it ends, even if nobody waits for it.

        Raises:
            ServingError: Inputs the signature does not take, or a full queue.
        """
        try:
            future = self._scheduler.submit(lease.servable, signature, signature.check(inputs))
        except BaseException:
            lease.release()
            raise
        future.add_done_callback(lease.release)
        return future

    @contextlib.contextmanager
    def counted(self, model: str, entrypoint: str) -> Iterator[None]:
        """Puts a Predict request's outcome and time into the metrics."""
        start = time.perf_counter()
        status = "OK"
        try:
            yield
        except Exception as error:
            status = errors.from_exception(error).code
            raise
        finally:
            # A name nobody serves would let a caller grow the metrics without bound.
            name = model if model in self.manager.names else "unknown"
            self.metrics.requests.add(name, status)
            elapsed_us = (time.perf_counter() - start) * 1e6
            self.metrics.latency.observe(name, "Predict", entrypoint, value=elapsed_us)
