"""The way from a request to the graph, shared by REST and gRPC."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.manager import Lease, ModelManager
from keras_lightnets.serving.server.servable import DEFAULT_SIGNATURE, Servable, Signature

Arrays = dict[str, np.ndarray]


class Predictor:
    """Admits requests and runs them, each by itself.

    Args:
        manager: Holds the loaded versions.
        max_requests: Requests worked on at once; one more is refused.
    """

    def __init__(self, manager: ModelManager, max_requests: int) -> None:
        self.manager = manager
        self._free = threading.BoundedSemaphore(max_requests)
        self._max_requests = max_requests
        # More threads than cores only queue inside TensorFlow.
        self._pool = concurrent.futures.ThreadPoolExecutor(
            max(2, os.cpu_count() or 1), "serving-run"
        )

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request as in flight.

        Raises:
            ServingError: The server works on as many requests as it may.
        """
        if not self._free.acquire(blocking=False):
            raise errors.ServingError(
                "UNAVAILABLE",
                f"The server is at its limit of {self._max_requests} requests: try again",
            )
        try:
            yield
        finally:
            self._free.release()

    def submit(
        self, lease: Lease, signature: Signature, inputs: Arrays
    ) -> concurrent.futures.Future[Arrays]:
        """Starts a run that keeps its version loaded until it ends, even if nobody waits for it."""
        future = self._pool.submit(lease.servable.run, signature, inputs)
        future.add_done_callback(lease.release)
        return future

    def close(self) -> None:
        """Finishes what runs and drops what waits."""
        self._pool.shutdown(cancel_futures=True)


def signature_of(servable: Servable, name: str | None, code: str, message: str) -> Signature:
    """The signature called `name`, or the default one.

    Args:
        servable: A loaded version.
        name: What a request says; may be empty.
        code: Of the error; REST and gRPC have different ones.
        message: How the error begins, with the name as `{}`.

    Raises:
        ServingError: There is none.
    """
    key = name or DEFAULT_SIGNATURE
    if key not in servable.signatures:
        found = sorted(servable.signatures)
        raise errors.ServingError(code, f"{message.format(key)}; this model has {found}")
    return servable.signatures[key]
