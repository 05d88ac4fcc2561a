"""Counters and histograms in the Prometheus text format.

`prometheus_client` appends `_total` to every counter's name; TF Serving's names lack it, and
dashboards written for them must work here, so the few lines of text format stand here.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterator

# Microseconds, TF Serving's unit for latencies: 100 us to about 3 minutes.
LATENCY_BUCKETS_US = tuple(100 * 1.8**i for i in range(25))
BATCH_BUCKETS = tuple(2**i for i in range(11))


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    escaped = (v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for v in values)
    pairs = [f'{n}="{v}"' for n, v in zip(names, escaped, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""


class Counter:
    """A number that only grows, per label values."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        """Adds `amount` to the series with these label values."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} counter"
        with self._lock:
            values = sorted(self._values.items())
        for labels, value in values:
            yield f"{self.name}{_labels(self.labels, labels)} {value:g}"


class Histogram:
    """A distribution in fixed buckets, per label values."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> None:
        self.name, self.text, self.labels, self.buckets = name, text, labels, buckets
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def observe(self, *labels: str, value: float) -> None:
        """Adds one observation to the series with these label values."""
        with self._lock:
            if labels not in self._series:
                self._series[labels] = ([0] * (len(self.buckets) + 1), [0.0])
            counts, total = self._series[labels]
            counts[bisect.bisect_left(self.buckets, value)] += 1
            total[0] += value

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} histogram"
        with self._lock:
            series = sorted((k, list(c), t[0]) for k, (c, t) in self._series.items())
        for labels, counts, total in series:
            running = 0
            for bound, count in zip([*self.buckets, float("inf")], counts, strict=True):
                running += count
                le = "+Inf" if bound == float("inf") else f"{bound:.6g}"
                bucket = _labels((*self.labels, "le"), (*labels, le))
                yield f"{self.name}_bucket{bucket} {running}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {total:.17g}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {running}"


class Gauge:
    """A number read when asked."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name, self.text, self.read = name, text, read

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} gauge"
        yield f"{self.name} {self.read():g}"


class Metrics:
    """What the server counts. Names starting with `:tensorflow:` are TF Serving's."""

    def __init__(self) -> None:
        self.requests = Counter(
            ":tensorflow:serving:request_count",
            "Predict requests by outcome.",
            ("model_name", "status"),
        )
        self.latency = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request's arrival to its answer.",
            ("model_name", "API", "entrypoint"),
            LATENCY_BUCKETS_US,
        )
        self.runtime = Histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds in Session.run.",
            ("model_name", "API", "runtime"),
            LATENCY_BUCKETS_US,
        )
        self.loads = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "Versions loaded.",
            ("model_path", "status"),
        )
        self.batch_size = Histogram(
            "lightnets_serving_batch_size",
            "Rows of a merged batch before padding.",
            ("model_name",),
            BATCH_BUCKETS,
        )
        self.batch_tasks = Histogram(
            "lightnets_serving_batch_requests",
            "Requests merged into a batch.",
            ("model_name",),
            BATCH_BUCKETS,
        )
        self.refused = Counter(
            "lightnets_serving_refused_total", "Requests turned away by a limit.", ("limit",)
        )
        self.all: list[Counter | Histogram | Gauge] = [
            self.requests,
            self.latency,
            self.runtime,
            self.loads,
            self.batch_size,
            self.batch_tasks,
            self.refused,
        ]

    def text(self) -> str:
        """Everything in the Prometheus text format 0.0.4."""
        lines = []
        for metric in self.all:
            lines.append(f"# HELP {metric.name} {metric.text}")
            lines.extend(metric.lines())
        return "\n".join(lines) + "\n"
