"""Merges requests of many clients into batches, as TF Serving's batching session does.

One difference: TF Serving fails every request of a batch when one of them cannot be computed (an
image that is none). Here the requests of a failed batch are run again one by one, so that only
the bad one fails.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Hashable

import numpy as np

from keras_lightnets.serving.server import errors
from keras_lightnets.serving.server.batching_parameters import BatchingParameters
from keras_lightnets.serving.server.metrics import Metrics
from keras_lightnets.serving.server.scheduler import Arrays, Runnable, Signed, timed_run


@dataclasses.dataclass
class _Task:
    inputs: Arrays
    rows: int
    due: float  # time.monotonic() after which it no longer waits for company
    future: concurrent.futures.Future[Arrays]


@dataclasses.dataclass
class _Queue:
    """Waiting requests that can share a batch: same version, signature and row shapes."""

    servable: Runnable
    signature: Signed
    tasks: collections.deque[_Task]
    rows: int = 0


class Batcher:
    """Shared by all models: `parameters.threads` batches run at once.

    Args:
        parameters: From the batching file.
        metrics: Gets the sizes of the batches.
    """

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        self.parameters, self._metrics = parameters, metrics
        self._queues: dict[Hashable, _Queue] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"serving-batch-{i}", daemon=True)
            for i in range(parameters.threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, servable: Runnable, signature: Signed, inputs: Arrays
    ) -> concurrent.futures.Future[Arrays]:
        """See `Scheduler`.

        Raises:
            ServingError: More rows than a batch may have, differing row counts, or a full queue.
        """
        rows = _row_count(inputs) if signature.batched else 0
        limit = self.parameters.max_batch_size
        if rows > limit:
            if not self.parameters.split_large:
                raise errors.invalid(
                    f"Task size {rows} is larger than maximum input batch size {limit}: "
                    "send fewer rows a request"
                )
            parts = [
                {name: value[i : i + limit] for name, value in inputs.items()}
                for i in range(0, rows, limit)
            ]
            return _gather([self._enqueue(servable, signature, p, _row_count(p)) for p in parts])
        return self._enqueue(servable, signature, inputs, rows)

    def close(self) -> None:
        """Lets running batches finish and fails what waits."""
        with self._changed:
            self._closed = True
            waiting = [task for queue in self._queues.values() for task in queue.tasks]
            self._queues.clear()
            self._changed.notify_all()
        for task in waiting:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(errors.ServingError("UNAVAILABLE", "Server stops"))
        for thread in self._threads:
            thread.join()

    def _enqueue(
        self, servable: Runnable, signature: Signed, inputs: Arrays, rows: int
    ) -> concurrent.futures.Future[Arrays]:
        future: concurrent.futures.Future[Arrays] = concurrent.futures.Future()
        due = time.monotonic() + self.parameters.batch_timeout_us * 1e-6
        shapes = tuple((name, value.shape[1:]) for name, value in sorted(inputs.items()))
        # A signature that cannot be merged gets a queue for each request.
        key = (id(servable), signature.name, shapes if signature.batched else id(future))
        with self._changed:
            if self._closed:
                raise errors.ServingError("UNAVAILABLE", "Server stops")
            queue = self._queues.setdefault(key, _Queue(servable, signature, collections.deque()))
            room = self.parameters.max_enqueued_batches * self.parameters.max_batch_size
            if queue.tasks and queue.rows + rows > room:
                self._metrics.refused.add("batch_queue")
                raise errors.ServingError(
                    "UNAVAILABLE",
                    "The batch scheduling queue to which this task was submitted is full",
                )
            queue.tasks.append(_Task(inputs, rows, due, future))
            queue.rows += rows
            self._changed.notify()
        return future

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            queue, tasks = batch
            tasks = [t for t in tasks if t.future.set_running_or_notify_cancel()]
            if tasks:
                self._run(queue, tasks)
            # An idle thread must not keep the last batch's arrays or an unloaded version alive.
            del batch, queue, tasks

    def _next_batch(self) -> tuple[_Queue, list[_Task]] | None:
        """Waits until some queue is full enough or has waited long enough; None when closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                wait = None
                best = None
                for key, queue in self._queues.items():
                    due = queue.tasks[0].due
                    full = queue.rows >= self.parameters.max_batch_size
                    if due <= now or full or not queue.signature.batched:
                        if best is None or due < self._queues[best].tasks[0].due:
                            best = key
                    else:
                        wait = due - now if wait is None else min(wait, due - now)
                if best is not None:
                    return self._take(best)
                self._changed.wait(wait)
            return None

    def _take(self, key: Hashable) -> tuple[_Queue, list[_Task]]:
        queue = self._queues[key]
        tasks = [queue.tasks.popleft()]
        rows = tasks[0].rows
        while queue.tasks and rows + queue.tasks[0].rows <= self.parameters.max_batch_size:
            tasks.append(queue.tasks.popleft())
            rows += tasks[-1].rows
        queue.rows -= rows
        if queue.tasks:
            self._changed.notify()  # what is left may be due as well
        else:
            del self._queues[key]
        return queue, tasks

    def _run(self, queue: _Queue, tasks: list[_Task]) -> None:
        try:
            outputs = self._run_merged(queue, tasks)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].future.set_exception(error)
                return
            for task in tasks:
                self._run(queue, [task])
            return
        for task, output in zip(tasks, outputs, strict=True):
            task.future.set_result(output)

    def _run_merged(self, queue: _Queue, tasks: list[_Task]) -> list[Arrays]:
        servable, signature = queue.servable, queue.signature
        if not signature.batched:
            return [timed_run(servable, signature, tasks[0].inputs, self._metrics)]
        rows = sum(task.rows for task in tasks)
        inputs = _merge([task.inputs for task in tasks], self.parameters.padded(rows) - rows)
        outputs = timed_run(servable, signature, inputs, self._metrics)
        expected = _row_count(inputs)
        for name, value in outputs.items():
            if value.ndim == 0 or len(value) != expected:
                raise errors.ServingError(
                    "FAILED_PRECONDITION",
                    f"Output {name!r} has shape {value.shape} for a batch of {expected} rows: "
                    "this signature cannot be batched",
                )
        self._metrics.batch_size.observe(servable.name, value=rows)
        self._metrics.batch_tasks.observe(servable.name, value=len(tasks))
        ends = np.cumsum([task.rows for task in tasks])
        return [
            {name: value[end - task.rows : end] for name, value in outputs.items()}
            for task, end in zip(tasks, ends, strict=True)
        ]


def _row_count(inputs: Arrays) -> int:
    counts = {name: len(value) for name, value in inputs.items()}
    if len(set(counts.values())) != 1:
        raise errors.invalid(f"Batching needs inputs of equal 0th dimension. Received: {counts}")
    return next(iter(counts.values()))


def _merge(parts: list[Arrays], padding: int) -> Arrays:
    """Concatenates along the first axis and repeats the first row `padding` times."""
    if len(parts) == 1 and not padding:
        return parts[0]
    return {
        name: np.concatenate(
            [part[name] for part in parts] + [np.repeat(first[:1], padding, axis=0)] * bool(padding)
        )
        for name, first in parts[0].items()
    }


def _gather(
    parts: list[concurrent.futures.Future[Arrays]],
) -> concurrent.futures.Future[Arrays]:
    """One future for the pieces of a split request."""
    whole: concurrent.futures.Future[Arrays] = concurrent.futures.Future()
    whole.set_running_or_notify_cancel()
    left = len(parts)
    lock = threading.Lock()

    def finished(_: concurrent.futures.Future[Arrays]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        try:
            whole.set_result(_merge([part.result() for part in parts], 0))
        except Exception as error:
            whole.set_exception(error)

    for part in parts:
        part.add_done_callback(finished)
    return whole
