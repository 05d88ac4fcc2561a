"""Training batches from tf.data service: other machines read, decode and augment.

Workers ask for the numbers of steps. So every batch is one that the run would have made itself,
and comes at most once. But it comes when it is ready: neither the order nor what a resumed run
sees is exact. Evaluation stays on this machine.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from lightnets.data.sources.stream import AnySource
from lightnets.support.errors import UsageError, UserError

# Seconds that a dispatcher has to answer, and that the next batch may take.
ANSWER, PATIENCE = 10.0, 300.0


def parse(address: str) -> str:
    """Returns `host:port` of an address such as `grpc://host:port`.

    Raises:
        UsageError: It is neither of these.
    """
    match = re.fullmatch(r"(?:grpc://)?([^\s:/,]+:\d+|\[[0-9a-fA-F:]+\]:\d+)", address)
    if match is None:
        raise UsageError(
            f"data.data_service takes host:port of a tf.data service dispatcher. "
            f"Received: {address!r}."
        )
    return match[1]


def check(address: str) -> None:
    """Returns when a dispatcher with at least one worker answers.

    TensorFlow itself would wait for ever.

    Raises:
        UserError: Nobody answers, or it is no dispatcher, or it has no workers.
    """
    if not workers(address):
        raise UserError(
            f"data.data_service: the dispatcher {parse(address)} has no workers. Start them as "
            "docs/data.md says."
        )


def workers(address: str) -> bytes:
    """Returns a dispatcher's list of its workers, a serialized message: empty without any.

    Raises:
        UserError: Nobody answers, or it is no dispatcher.
    """
    import grpc

    target = parse(address)
    with grpc.insecure_channel(target) as channel:
        ask = channel.unary_unary("/tensorflow.data.DispatcherService/GetWorkers")
        try:
            return ask(b"", timeout=ANSWER, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                problem = f"does not answer within {ANSWER:g} s"
            else:
                problem = f"is no dispatcher of tf.data service ({error.code().name})"
            raise UserError(
                f"data.data_service: {target} {problem}. Start one as docs/data.md says, "
                "or train without --data-service."
            ) from None


def check_source(source: AnySource, dataset: str) -> None:
    """Raises UsageError if the workers could not read a source."""
    if not source.portable:
        raise UsageError(
            f"data.data_service: its workers cannot read {dataset}: arrays and ArrayRecord are "
            "read in this process. Use a folder, a list or TFRecord files, or drop --data-service."
        )


def through(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """Returns the batches as the workers of a tf.data service make them, in no exact order.

    Args:
        batches: Its first dataset is a range: what is shared out to the workers.
        address: Of the dispatcher.
    """
    service = tf.data.experimental.service
    target = parse(address)
    remote = batches.apply(
        service.distribute(service.ShardingPolicy.DYNAMIC, service=f"grpc://{target}")
    )
    return tf.data.Dataset.from_generator(
        lambda: _bounded(remote, target), output_signature=batches.element_spec
    )


def _bounded(remote: tf.data.Dataset, target: str) -> Iterator[Any]:
    """Yields what a dataset does; raises if nothing comes for long.

    Without workers TensorFlow waits for ever, and hears no signal meanwhile.
    """
    ready: queue.Queue[Any] = queue.Queue(2)
    closed = threading.Event()

    def read() -> None:
        try:
            for batch in remote:
                ready.put(batch)
                if closed.is_set():
                    return
            raise EOFError("it has ended")
        except Exception as error:  # whatever it is, the run must hear of it
            ready.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            try:
                batch = ready.get(timeout=PATIENCE)
            except queue.Empty:
                raise TimeoutError(
                    f"no batch of the data service {target} within {PATIENCE:g} s, are its workers "
                    "there?"
                ) from None
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        closed.set()
        # The thread may wait for room in the queue. Then it sees that nobody reads any more.
        while not ready.empty():
            ready.get_nowait()
