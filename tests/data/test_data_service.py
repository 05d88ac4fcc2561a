"""`--data-service`: a real dispatcher and real workers, in processes of their own."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import pathlib
import re
import runpy
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import lightnets.data
from lightnets.config import keys as configuration
from lightnets.data import service
from lightnets.run import build, train
from lightnets.support.errors import UserError
from tests import processes, toy
from tests.checkout import ROOT

EXAMPLE = ROOT / "docs/cluster/data_service.py"


def serve(*arguments):
    sys.argv = [str(EXAMPLE), *map(str, arguments)]
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def start(workers):
    """Starts a dispatcher and some workers; returns its address and the processes."""
    ports = processes.free_ports(workers + 1)
    address = f"127.0.0.1:{ports[0]}"
    children = [processes.Child(serve, "dispatcher", "--port", ports[0])]
    children += [
        processes.Child(serve, "worker", "--dispatcher", address, "--address", f"127.0.0.1:{port}")
        for port in ports[1:]
    ]
    for port in ports:
        wait_for(port)
    return address, children


def wait_for(port):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nobody listens on {port}")


def wait_for_workers(address, count):
    end = time.monotonic() + 60
    while service.workers(address).count(b"127.0.0.1:") < count:
        assert time.monotonic() < end, "no worker has come"
        time.sleep(0.1)


@pytest.fixture
def two_workers():
    address, children = start(2)
    wait_for_workers(address, 2)
    yield address, children
    for child in children:
        if child.process.is_alive():
            child.kill()


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return toy.noise_files(tmp_path / "pictures", 30, "abcd")


def config(pictures, address=None, **data):
    values = {"dataset": str(pictures), "data_service": address} | data
    return configuration.from_dict(
        {
            "model": {"image_size": 16},
            "data": values,
            "train": {"batch_size": 4, "epochs": 2, "devices": "cpu:1"},
        }
    )


def content(batch):
    return b"".join(np.asarray(part).tobytes() for part in batch)


@pytest.mark.slow
def test_each_batch_is_one_of_the_runs_own_and_comes_once(pictures, two_workers):
    """Caught: each worker going through all data; another seed or augmentation on a worker."""
    address, _ = two_workers
    steps, most = 40, 2000
    local = iter(lightnets.data.load(config(pictures)).train(3, global_batch=4))
    splits = lightnets.data.load(config(pictures, address), checked=True)
    batches = iter(splits.train(3, global_batch=4))
    # A worker that starts late, or is slow, delivers its share of the first steps late.
    own, seen = [], []
    while not set(own[:steps] or [b""]) <= set(seen):
        assert len(own) < most, "some of the first batches never came"
        own += [content(next(local)) for _ in range(steps)]
        seen += [content(next(batches)) for _ in range(steps)]
    own += [content(next(local)) for _ in range(200)]
    assert len(set(own)) == len(own)  # augmentation makes every batch another one
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(own)
    assert "not exact" in splits.order


@pytest.mark.slow
def test_a_killed_worker_is_done_without_and_two_end_the_run(pictures, two_workers, monkeypatch):
    """Caught: waiting for ever, as TensorFlow does."""
    monkeypatch.setattr(service, "PATIENCE", 10)
    address, children = two_workers
    batches = iter(lightnets.data.load(config(pictures, address)).train(global_batch=4))
    next(batches)
    children[1].kill()
    assert [len(next(batches)[0]) for _ in range(200)] == [4] * 200
    children[2].kill()
    with pytest.raises(tf.errors.UnknownError, match=r"no batch of the data service .* 10 s"):
        collections.deque(batches, maxlen=0)


def train_on_the_service(config, out):
    """Trains the toy network on real pictures; returns the results and what it printed."""
    build.build_model = toy.build_model
    toy.SIDE = config.model.image_size
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        return train.train(config, pathlib.Path(out)), printed.getvalue()


@pytest.mark.slow
def test_a_run_trains_on_it_and_says_that_the_order_is_not_exact(pictures, two_workers, tmp_path):
    address, _ = two_workers
    out = tmp_path / "run"
    out.mkdir()
    results, printed = processes.call(
        train_on_the_service, config(pictures, f"grpc://{address}"), out
    )
    assert results["steps"] == 12
    assert "not exact, also not when resumed" in printed


# The command, which waits for a batch for twenty seconds instead of five minutes.
COMMAND = """
import sys
from lightnets.support import quiet
quiet.quieten()
from lightnets.data import service
service.PATIENCE = 20
from lightnets.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.nightly
def test_the_command_without_its_workers_ends_with_one_line_and_goes_on(
    pictures, two_workers, tmp_path
):
    """Caught: waiting for ever, a traceback, a run that cannot be resumed on new workers."""
    address, children = two_workers
    out, epochs = tmp_path / "run", 12
    flags = ["--dataset", pictures, "--out", out, "--image-size", 32, "--epochs", epochs]
    flags += ["--model", "mobilenet_v2_trunc_x0_25", "--recipe", "scratch-small"]
    flags += ["--batch-size", 4, "--data-service", address]

    def start_command(*arguments):
        command = [sys.executable, "-u", "-c", COMMAND, "train", *map(str, arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )

    with start_command(*flags) as command:
        for line in command.stdout:
            if line.startswith("2/"):
                break
        for child in children[1:]:
            child.kill()
        _, err = command.communicate(timeout=600)
    assert command.returncode == 1, err
    assert err.count("\n") == 1, err
    assert re.fullmatch(
        rf"lightnets: data.data_service: no batch of the data service {address} within 20 s, .*"
        r"Start what is missing, then go on with lightnets train --resume\.\n",
        err,
    )
    done = json.loads((out / "history.json").read_text())
    assert 2 <= len(done) < epochs

    (port,) = processes.free_ports(1)
    worker = ("worker", "--dispatcher", address, "--address", f"127.0.0.1:{port}")
    children.append(processes.Child(serve, *worker))
    wait_for(port)
    with start_command("--resume", out) as command:
        _, err = command.communicate(timeout=600)
    assert (command.returncode, err) == (0, "")
    history = json.loads((out / "history.json").read_text())
    assert history[: len(done)] == done
    assert len(history) == epochs
    assert json.loads((out / "results.json").read_text())["steps"] == epochs * 6


def test_a_service_that_is_not_there_is_named_in_bounded_time(pictures, monkeypatch):
    monkeypatch.setattr(service, "ANSWER", 0.5)
    (port,) = processes.free_ports(1)
    with pytest.raises(UserError, match=rf"127.0.0.1:{port} does not answer within 0.5 s"):
        lightnets.data.load(config(pictures, f"127.0.0.1:{port}"), checked=True)
    # Evaluating the run later needs no service.
    lightnets.data.load(config(pictures, f"127.0.0.1:{port}"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="does not answer"):
            lightnets.data.load(config(pictures, address), checked=True)


def test_a_dispatcher_without_workers_is_said(pictures):
    address, children = start(0)
    try:
        with pytest.raises(UserError, match="has no workers"):
            lightnets.data.load(config(pictures, address), checked=True)
    finally:
        children[0].kill()


@pytest.mark.parametrize(
    ("dataset", "data", "message"),
    [
        ("pictures", {"data_service": "http://host:1"}, "takes host:port"),
        ("digits", {}, "cannot read digits"),
    ],
)
def test_what_a_service_cannot_do_is_refused(pictures, monkeypatch, dataset, data, message):
    monkeypatch.setattr(service, "check", service.parse)  # there is one
    dataset = pictures if dataset == "pictures" else dataset
    wanted = config(dataset, **{"data_service": "host:1"} | data)
    with pytest.raises(UserError, match=message):
        lightnets.data.load(wanted, checked=True)
