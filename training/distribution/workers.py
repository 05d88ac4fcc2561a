"""Several machines that train one network together, each running the same command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator

from keras_lightnets.text import first_line
from lightnets.config.keys import TrainConfig
from lightnets.support.errors import UsageError, UserError
from lightnets.support.words import command


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All workers, and which of them this process is.

    Attributes:
        addresses: `host:port` of every worker, in the same order everywhere.
        index: Position of this process in it. Number 0 writes all files.
        wait_minutes: How long to wait at the start for those that are not there yet.
    """

    addresses: tuple[str, ...]
    index: int
    wait_minutes: float = 10.0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.index == 0


def cluster(config: TrainConfig) -> Cluster | None:
    """Returns the workers of `train.workers`, else of TF_CONFIG; None for a single machine.

    Does not import TensorFlow.

    Raises:
        UsageError: Neither is well formed.
    """
    if config.workers:
        addresses, index = config.workers.split(","), config.worker_index
        source = "train.workers"
    elif text := os.environ.get("TF_CONFIG"):
        addresses, index = _of_tf_config(text)
        source = "TF_CONFIG"
    else:
        return None
    for address in addresses:
        if not re.fullmatch(r"[^\s:,]+:\d+|\[[0-9a-fA-F:]+\]:\d+", address):
            raise UsageError(f"{source} takes host:port. Received: {address!r}.")
    if len(set(addresses)) != len(addresses):
        raise UsageError(f"{source} names a worker twice: {', '.join(addresses)}.")
    if not 0 <= index < len(addresses):
        raise UsageError(
            f"The worker's index must be below the {len(addresses)} workers of {source}. "
            f"Received: {index}."
        )
    if len(addresses) == 1:
        return None
    return Cluster(tuple(addresses), index, config.worker_wait_minutes)


def _of_tf_config(text: str) -> tuple[list[str], int]:
    try:
        values = json.loads(text)
        hosts, task = values.get("cluster", {}), values.get("task", {})
        chiefs, others = hosts.get("chief", []), hosts.get("worker", [])
        index = int(task.get("index", 0))
        kind = task.get("type", "worker")
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"The environment variable TF_CONFIG is malformed: {error}.") from None
    if kind not in ("chief", "worker") or set(hosts) - {"chief", "worker"}:
        raise UsageError(
            "TF_CONFIG may name tasks of type chief and worker. Received: "
            f"{', '.join(sorted({kind, *hosts}))}."
        )
    return [*chiefs, *others] or ["localhost:0"], index + (len(chiefs) if kind == "worker" else 0)


def resume_command(config: TrainConfig, out: os.PathLike) -> str:
    """Returns the command that continues the run in `out` on this machine."""
    if not config.workers:
        return command("train", "--resume", out)
    which = ("--workers", config.workers, "--worker-index", config.worker_index)
    return command("train", "--resume", out, *which)


@contextlib.contextmanager
def explain_failures(members: Cluster | None, resume: str) -> Iterator[None]:
    """Turns TensorFlow's errors about a lost worker into one clear line.

    Args:
        members: The workers, or None on a single machine.
        resume: The command that continues the run.

    Raises:
        UserError: Another worker is gone, so this one cannot go on.
    """
    if members is None:
        yield
        return
    import tensorflow as tf

    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
        tf.errors.InternalError,
    )
    try:
        yield
    except lost as error:
        raise UserError(
            f"Worker {members.index} lost contact with another of the {len(members.addresses)} "
            f"workers and stops ({first_line(error)}). Start all of them again, each with: {resume}"
        ) from None
