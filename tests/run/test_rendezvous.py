"""Workers that are late, absent or strangers, before TensorFlow starts."""

import socket
import threading
import time

import pytest

from lightnets.distribution import rendezvous
from lightnets.distribution.workers import Cluster
from lightnets.support.errors import UserError
from tests.processes import free_ports


def cluster(index, addresses, minutes=0.2):
    return Cluster(tuple(addresses), index, minutes)


def test_all_go_on_when_the_last_one_has_come():
    # Catches a start with one worker missing: strangers and repeated visits are none.
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    gone = []

    def start(index):
        rendezvous.meet(cluster(index, addresses))
        gone.append(index)

    threads = [threading.Thread(target=start, args=(index,)) for index in (1, 0)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    port = int(addresses[0].rpartition(":")[2])
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"", rendezvous._HELLO % 1, rendezvous._HELLO % 9):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(said)
    time.sleep(0.3)
    assert gone == []
    start(2)
    for thread in threads:
        thread.join(5)
    assert sorted(gone) == [0, 1, 2]


@pytest.mark.parametrize(
    ("index", "message"), [(0, r"for worker 1 \(b:2\), 2 \(c:3\): not"), (2, r"worker 0 \(127.*or")]
)
def test_a_worker_that_never_starts_is_named_with_the_option(index, message):
    (port,) = free_ports(1)
    members = cluster(index, [f"127.0.0.1:{port}", "b:2", "c:3"], minutes=0.01)
    with pytest.raises(UserError, match=message + ".*train.worker_wait_minutes"):
        rendezvous.meet(members)


def test_a_port_in_use_is_named():
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(UserError, match=r"cannot listen on localhost:\d+: Address already in use"),
    ):
        rendezvous.meet(cluster(0, [f"localhost:{taken.getsockname()[1]}", "b:2"]))
