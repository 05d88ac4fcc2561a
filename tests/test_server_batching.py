"""Merging of requests into batches, on a graph that remembers what it was given."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from keras_lightnets.serving.server import batching_parameters, errors
from keras_lightnets.serving.server.batcher import Batcher
from keras_lightnets.serving.server.batching_parameters import BatchingParameters
from keras_lightnets.serving.server.metrics import Metrics
from keras_lightnets.serving.server.scheduler import DirectScheduler


class Signature:
    def __init__(self, name="double", batched=True) -> None:
        self.name, self.batched = name, batched


class Graph:
    """Doubles its input; a row of -1 makes the whole run fail."""

    name = "graph"

    def __init__(self) -> None:
        self.runs: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def run(self, signature, inputs):
        self.entered.release()
        assert self.gate.wait(20)
        self.runs.append(inputs["x"].reshape(len(inputs["x"]), -1)[:, 0].tolist())
        if (inputs["x"] == -1).any():
            raise errors.invalid("bad row")
        return {"y": 2 * inputs["x"]}


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def make(graph):
    made = []

    def make(**parameters):
        metrics = Metrics()
        batcher = Batcher(BatchingParameters(**parameters), metrics)
        batcher.metrics = metrics
        made.append(batcher)
        return batcher

    yield make
    graph.gate.set()
    for batcher in made:
        batcher.close()


def rows(*values):
    return {"x": np.array(values, np.float32)}


def test_waiting_requests_share_a_run_and_get_their_own_rows(make, graph):
    batcher = make(max_batch_size=8, batch_timeout_us=10_000_000, threads=1)
    futures = [batcher.submit(graph, Signature(), rows(*r)) for r in ([1, 2], [3], [4, 5, 6, 7, 8])]
    results = [f.result(20)["y"].tolist() for f in futures]
    assert results == [[2, 4], [6], [8, 10, 12, 14, 16]]
    assert graph.runs == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert 'lightnets_serving_batch_requests_sum{model_name="graph"} 3' in batcher.metrics.text()


def test_a_lone_request_leaves_after_the_timeout(make, graph):
    batcher = make(max_batch_size=8, batch_timeout_us=50_000, threads=1)
    start = time.monotonic()
    assert batcher.submit(graph, Signature(), rows(1)).result(20)["y"].tolist() == [2]
    assert time.monotonic() - start >= 0.05


def test_what_arrives_while_the_graph_is_busy_is_merged_without_any_timeout(make, graph):
    batcher = make(max_batch_size=8, batch_timeout_us=0, threads=1)
    graph.gate.clear()
    futures = [batcher.submit(graph, Signature(), rows(0))]
    assert graph.entered.acquire(timeout=20)
    futures += [batcher.submit(graph, Signature(), rows(i)) for i in range(1, 6)]
    graph.gate.set()
    assert [f.result(20)["y"][0] for f in futures] == [0, 2, 4, 6, 8, 10]
    assert graph.runs == [[0], [1, 2, 3, 4, 5]]


def test_batches_are_padded_to_allowed_sizes_with_a_real_row(make, graph):
    """Zeros instead of a row would be an image nobody sent, and could fail."""
    batcher = make(max_batch_size=8, allowed_batch_sizes=(1, 4, 8), threads=1)
    output = batcher.submit(graph, Signature(), rows(7, 8)).result(20)["y"]
    assert graph.runs == [[7, 8, 7, 7]]
    assert output.tolist() == [14, 16]


def test_one_bad_request_does_not_fail_the_others(make, graph):
    batcher = make(max_batch_size=3, batch_timeout_us=10_000_000, threads=1)
    futures = [batcher.submit(graph, Signature(), rows(i)) for i in (1, -1, 3)]
    assert futures[0].result(20)["y"].tolist() == [2]
    with pytest.raises(errors.ServingError, match="bad row"):
        futures[1].result(20)
    assert futures[2].result(20)["y"].tolist() == [6]


def test_different_shapes_signatures_and_versions_are_kept_apart(make, graph):
    other = Graph()
    batcher = make(max_batch_size=8, batch_timeout_us=100_000, threads=1)
    futures = [
        batcher.submit(graph, Signature(), {"x": np.ones((1, 2))}),
        batcher.submit(graph, Signature(), {"x": np.ones((1, 3))}),
        batcher.submit(graph, Signature("other"), {"x": np.ones((1, 2))}),
        batcher.submit(other, Signature(), {"x": np.ones((1, 2))}),
    ]
    for future in futures:
        future.result(20)
    assert (len(graph.runs), len(other.runs)) == (3, 1)


def test_a_signature_without_a_batch_axis_runs_alone(make, graph):
    batcher = make(max_batch_size=1, batch_timeout_us=10_000_000, threads=1)
    signature = Signature(batched=False)
    futures = [batcher.submit(graph, signature, rows(1, 2, 3)) for _ in range(2)]
    assert [f.result(20)["y"].tolist() for f in futures] == [[2, 4, 6]] * 2
    assert len(graph.runs) == 2


def test_a_request_above_the_largest_batch_is_refused_or_split(make, graph):
    with pytest.raises(errors.ServingError, match="larger than maximum input batch size 2"):
        make(max_batch_size=2).submit(graph, Signature(), rows(1, 2, 3))
    batcher = make(max_batch_size=2, split_large=True)
    output = batcher.submit(graph, Signature(), rows(1, 2, 3)).result(20)["y"]
    assert output.tolist() == [2, 4, 6]
    assert sorted(map(len, graph.runs)) == [1, 2]


def test_a_full_queue_refuses(make, graph):
    batcher = make(max_batch_size=1, max_enqueued_batches=2, threads=1)
    graph.gate.clear()
    running = batcher.submit(graph, Signature(), rows(0))
    assert graph.entered.acquire(timeout=20)
    waiting = [batcher.submit(graph, Signature(), rows(i)) for i in (1, 2)]
    with pytest.raises(errors.ServingError, match=r"queue .* is full") as caught:
        batcher.submit(graph, Signature(), rows(3))
    assert caught.value.http_status == 503
    graph.gate.set()
    assert [f.result(20)["y"][0] for f in [running, *waiting]] == [0, 2, 4]


def test_a_cancelled_request_does_not_run(make, graph):
    batcher = make(max_batch_size=8, threads=1)
    graph.gate.clear()
    running = batcher.submit(graph, Signature(), rows(0))
    assert graph.entered.acquire(timeout=20)
    abandoned = batcher.submit(graph, Signature(), rows(1))
    assert abandoned.cancel()
    graph.gate.set()
    running.result(20)
    batcher.submit(graph, Signature(), rows(2)).result(20)
    assert graph.runs == [[0], [2]]


def test_an_output_without_the_batch_axis_is_an_error(make):
    class Scalar(Graph):
        def run(self, signature, inputs):
            return {"y": np.zeros(1)}

    with pytest.raises(errors.ServingError, match="cannot be batched"):
        make(max_batch_size=8).submit(Scalar(), Signature(), rows(1, 2)).result(20)


def test_closing_fails_what_waits(make, graph):
    batcher = make(max_batch_size=8, batch_timeout_us=60_000_000, threads=1)
    future = batcher.submit(graph, Signature(), rows(1))
    batcher.close()
    with pytest.raises(errors.ServingError, match="stops"):
        future.result(20)
    with pytest.raises(errors.ServingError, match="stops"):
        batcher.submit(graph, Signature(), rows(1))


def test_many_threads_get_their_own_answers(make, graph):
    batcher = make(max_batch_size=16, batch_timeout_us=200, threads=3, max_enqueued_batches=100)
    wrong = []

    def work(number):
        for i in range(100):
            value = 1 + 1000 * number + i
            if batcher.submit(graph, Signature(), rows(value)).result(20)["y"][0] != 2 * value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(map(len, graph.runs)) == 800
    assert len(graph.runs) < 800


def test_without_batching_every_request_runs_by_itself(graph):
    scheduler = DirectScheduler(2, Metrics())
    futures = [scheduler.submit(graph, Signature(), rows(i)) for i in range(4)]
    assert [f.result(20)["y"][0] for f in futures] == [0, 2, 4, 6]
    assert sorted(graph.runs) == [[0], [1], [2], [3]]
    scheduler.close()


def test_the_batching_file_is_read(tmp_path):
    path = tmp_path / "batching_parameters.txt"
    path.write_text(
        "# measured\nmax_batch_size { value: 16 }\nbatch_timeout_micros { value: 0 }\n"
        "max_enqueued_batches { value: 7 }\nnum_batch_threads { value: 3 }\n"
        'thread_pool_name { value: "x" }\nallowed_batch_sizes: 4\nallowed_batch_sizes: 16\n'
        "enable_large_batch_splitting { value: true }\n"
    )
    assert batching_parameters.read(path) == BatchingParameters(16, 0, 7, 3, (4, 16), True)
    path.write_text("")
    assert batching_parameters.read(path) == BatchingParameters()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("max_batch_sice { value: 1 }", 'no field named "max_batch_sice"'),
        ("max_batch_size: 1", "max_batch_size"),
        ("max_batch_size { value: 0 }", "`max_batch_size` must be at least 1"),
        ("batch_timeout_micros { value: -1 }", "negative"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "end with `max_batch_size`"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 8 allowed_batch_sizes: 4",
            "must increase",
        ),
    ],
)
def test_a_wrong_batching_file_is_refused_by_name(tmp_path, text, error):
    path = tmp_path / "b.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"b\.txt: ") as caught:
        batching_parameters.read(path)
    assert error in str(caught.value)
