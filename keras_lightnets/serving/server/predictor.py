"""The threads in which requests are worked on, those of REST and of gRPC alike."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable
from typing import Any

from keras_lightnets.serving.server import errors


class Predictor:
    """Works on requests, each in one thread from its bytes to the bytes of its answer.

    Args:
        max_requests: Worked on at once; one more is refused.
    """

    def __init__(self, max_requests: int) -> None:
        self._free = threading.BoundedSemaphore(max_requests)
        self._max_requests = max_requests
        # More threads than cores only queue inside TensorFlow.
        self._pool = concurrent.futures.ThreadPoolExecutor(
            max(2, os.cpu_count() or 1), "serving-run"
        )

    def submit(self, work: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
        """Starts the work on a request, which goes on even if nobody waits for it.

        Raises:
            ServingError: The server works on as many requests as it may.
        """
        if not self._free.acquire(blocking=False):
            raise errors.ServingError(
                "UNAVAILABLE",
                f"The server is at its limit of {self._max_requests} requests: try again",
            )
        future = self._pool.submit(work, *args)
        future.add_done_callback(lambda _: self._free.release())
        return future

    def run(self, limit_s: float, work: Callable[..., Any], *args: Any) -> Any:
        """Waits for the result of `submit`.

        Raises:
            ServingError: There is none within `limit_s`, or see `submit`.
        """
        future = self.submit(work, *args)
        try:
            return future.result(limit_s)
        except TimeoutError:
            future.cancel()
            raise errors.late(limit_s) from None
        finally:
            del future  # it holds the error, whose traceback holds this frame

    def close(self) -> None:
        """Finishes what runs and drops what waits."""
        self._pool.shutdown(cancel_futures=True)
