"""Exports killed at awkward moments under a server that watches: nobody notices."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import keras_lightnets
from keras_lightnets.export import bundle, deployment, readback
from keras_lightnets.export import parity as gate
from keras_lightnets.serving import Client, ClientError
from tests import processes
from tests.exports import SIZE, small_net
from tests.serving_models import serving

IMAGES = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype("uint8")
FORMATS = ["litert"]


def export(base: str, moment: str | None = None, marker: str = "") -> None:
    """Exports the next version; at `moment` touches `marker` and waits to be killed."""

    def wait(*pids: int) -> None:
        # Written whole: the test must not read half of it.
        temporary = pathlib.Path(f"{marker}.tmp")
        temporary.write_text(json.dumps(pids))
        temporary.rename(marker)
        time.sleep(600)

    started = []
    start = gate._start

    def start_both(*args):
        started.append(start(*args))
        if len(started) == 2:
            wait(*(process.pid for process in started))
        return started[-1]

    if moment == "reading back":
        gate._start = start_both
    if moment == "renamed":
        deployment.place_ready_files = lambda *_: wait()
    if moment == "about to rename":
        bundle.publish = lambda *_: wait()
    keras_lightnets.export_saved_model(
        small_net(),
        base,
        progress=lambda line: wait() if moment and line.startswith(moment) else None,
        options=keras_lightnets.ExportOptions(
            formats=FORMATS,
            warmup_batch_sizes=[1, 2],
        ),
    )


def killed_at(base: pathlib.Path, moment: str, marker: pathlib.Path) -> list[int]:
    """Runs an export in a process and kills it at `moment`; returns its children then."""
    child = processes.Child(export, str(base), moment, str(marker))
    end = time.monotonic() + 240
    while not marker.exists():
        assert child.process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)
    child.kill()
    child._results.close()
    pids = json.loads(marker.read_text())
    marker.unlink()
    return pids


@contextlib.contextmanager
def asking(url: str, expected: np.ndarray):
    """Two clients that ask all the time; yields what went wrong and how much went right."""
    failures, right = [], []
    stop = threading.Event()

    def work():
        with Client(url, "small", retries=0) as client:
            while not stop.is_set():
                try:
                    answer = client.predict({"images": IMAGES})["probabilities"]
                except ClientError as error:
                    failures.append(str(error))
                    continue
                if np.abs(np.array(answer) - expected).max() > 1e-5:
                    failures.append(f"another answer: {answer}")
                right.append(1)
                time.sleep(0.02)  # else the exports have no processor left

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield failures, right
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def files(version: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(version)): p.read_bytes() for p in version.rglob("*") if p.is_file()}


def is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the process ends by itself")
def test_a_process_whose_export_was_killed_before_it_started_ends_at_once(tmp_path):
    # Mutation: only asking for the signal, which comes never if the parent is already gone.
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-P", readback.__file__, "model", str(tmp_path), "out", "1"]
    done = subprocess.run([*command, str(gone.pid)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "the export has ended\n")


@pytest.mark.nightly
def test_killed_exports_and_a_switch_under_load_fail_no_request(tmp_path):
    # Mutations: publishing in place; two renamings; leftovers kept; children that stay.
    base, marker = tmp_path / "served", tmp_path / "marker"
    processes.call(export, str(base), timeout=240)
    model_dir = base / "small"
    first = files(model_dir / "1")
    ready = {p.name: p.read_bytes() for p in base.iterdir() if p.is_file()}
    expected = small_net().predict_on_batch(IMAGES.astype("float32"))
    moments = ("Converting", "Writing", "Comparing", "reading back", "about to rename")
    with (
        serving(base, "--poll-seconds", 0.1) as server,
        asking(server.url, expected) as (failures, right),
    ):
        for moment in moments:
            pids = killed_at(base, moment, marker)
            assert len(pids) == 2 * (moment == "reading back")
            assert list(bundle.versions(model_dir)) == [1]
            assert files(model_dir / "1") == first
            assert {p.name: p.read_bytes() for p in base.iterdir() if p.is_file()} == ready
            # One killed export's leavings at most: each one tidies up after the one before.
            assert len(list(model_dir.glob(".incoming-*"))) == 1
            end = time.monotonic() + 60
            while any(map(is_running, pids)):
                assert time.monotonic() < end
                time.sleep(0.05)
        killed_at(base, "renamed", marker)
        server.wait_for("version 2 is available")
        assert files(model_dir / "2").keys() == first.keys()  # whole, with its formats
        server.wait_for("version 1 is unloaded")
        processes.call(export, str(base), timeout=240)
        server.wait_for("version 3 is available")
        server.wait_for("version 2 is unloaded")
        seen = len(right)
        while len(right) < seen + 5:
            time.sleep(0.01)
    assert failures == []
    assert list(bundle.versions(model_dir)) == [1, 2, 3]
    assert not list(base.rglob(".incoming-*"))
    assert os.listdir(model_dir / "3" / "formats") != []  # noqa: PTH208
