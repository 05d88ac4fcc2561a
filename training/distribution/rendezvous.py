"""Waits until all workers have started, before TensorFlow does.

TensorFlow waits for a missing worker without end, and takes no signal while it does.
"""

from __future__ import annotations

import contextlib
import socket
import time

from lightnets.distribution.workers import Cluster
from lightnets.support.errors import UserError

_HELLO, _GO = b"lightnets worker %d\n", b"go\n"
_RETRY = 0.2  # seconds


def meet(members: Cluster) -> None:
    """Returns once every worker has called it; worker 0 listens, the others come to it.

    Raises:
        UserError: Somebody did not come in time, or this worker's address is not its own.
    """
    deadline = time.monotonic() + 60 * members.wait_minutes
    if members.is_chief:
        _gather(members, deadline)
    else:
        _come(members, deadline)


def _gather(members: Cluster, deadline: float) -> None:
    missing = dict(list(enumerate(members.addresses))[1:])
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(members.addresses[0]))
        here = []
        while missing:
            left = deadline - time.monotonic()
            if left <= 0:
                raise UserError(_absent(members, missing))
            listener.settimeout(left)
            with contextlib.suppress(OSError):
                connection = stack.enter_context(listener.accept()[0])
                connection.settimeout(1.0)
                said = connection.recv(64)
                for index in range(1, len(members.addresses)):
                    if said == _HELLO % index:  # once more if it was started again
                        missing.pop(index, None)
                        here.append(connection)
        for connection in here:
            with contextlib.suppress(OSError):
                connection.sendall(_GO)


def _come(members: Cluster, deadline: float) -> None:
    chief = members.addresses[0]
    while (left := deadline - time.monotonic()) > 0:
        # Refused, unknown as yet, or the end of the run before: all of them pass.
        with (
            contextlib.suppress(OSError),
            socket.create_connection(_host_and_port(chief), timeout=left) as connection,
        ):
            connection.sendall(_HELLO % members.index)
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            if connection.recv(64) == _GO:
                return
        time.sleep(_RETRY)
    raise UserError(_absent(members, {0: chief}))


def _absent(members: Cluster, missing: dict[int, str]) -> str:
    names = ", ".join(f"{index} ({address})" for index, address in missing.items())
    others = " or another one" if not members.is_chief and len(members.addresses) > 2 else ""
    return (
        f"Worker {members.index} has waited {members.wait_minutes:g} minutes for worker "
        f"{names}{others}: not started, or out of reach. Start all of them, or wait longer: "
        "--set train.worker_wait_minutes=N"
    )


def _listener(address: str) -> socket.socket:
    host, port = _host_and_port(address)
    try:
        # The port alone, as TensorFlow does: the name may be that of a proxy or a service.
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"Worker 0 cannot listen on {address}: {error.strerror}. Choose a free port of {host}."
        ) from None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
