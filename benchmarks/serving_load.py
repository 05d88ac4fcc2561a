"""Sends a bounded load to a server and measures what comes back."""

from __future__ import annotations

import collections
import dataclasses
import math
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence

from keras_lightnets.serving.client import Client
from keras_lightnets.serving.transport import ClientError


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load test saw.

    Attributes:
        seconds: From the first request to the last answer.
        images: Images classified.
        latencies_ms: Of the requests that were answered, sorted, in milliseconds.
        errors: Message -> how many requests ended with it.
    """

    seconds: float
    images: int
    latencies_ms: tuple[float, ...]
    errors: dict[str, int]

    @property
    def images_per_second(self) -> float:
        """Throughput over all clients."""
        return self.images / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The smallest latency that `percent` of the requests do not exceed; NaN without any."""
        if not self.latencies_ms:
            return math.nan
        rank = math.ceil(percent / 100 * len(self.latencies_ms))
        return self.latencies_ms[max(rank, 1) - 1]


def run_load(
    connect: Callable[[], Client],
    images: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    batch: int = 1,
) -> LoadReport:
    """Keeps `clients` connections busy for `seconds`, each with one request at a time.

    Args:
        connect: Makes a client's connection; without retries, so that failures are seen.
        images: Encoded images, sent in turn.
        clients: Connections, each with its own thread.
        seconds: How long new requests are sent.
        batch: Images in one request.
    """
    if not images or clients < 1 or seconds <= 0 or batch < 1:
        raise ValueError(
            "`images`, `clients`, `seconds` and `batch` must be positive. "
            f"Received: {len(images)}, {clients}, {seconds}, {batch}"
        )
    latencies: list[float] = []
    errors: collections.Counter[str] = collections.Counter()
    start = time.monotonic()

    def work(number: int) -> None:
        with connect() as client:
            sent = number
            while time.monotonic() < start + seconds:
                contents = [images[(sent + i) % len(images)] for i in range(batch)]
                sent += batch
                begin = time.perf_counter()
                try:
                    client.predict({"image_bytes": contents}, "serve_bytes")
                except ClientError as error:
                    errors[str(error)] += 1
                    if error.status is None:
                        time.sleep(0.1)  # nobody there: do not spin
                else:
                    latencies.append(1000 * (time.perf_counter() - begin))

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return LoadReport(
        time.monotonic() - start, batch * len(latencies), tuple(sorted(latencies)), dict(errors)
    )


def noise_png(size: int = 224) -> bytes:
    """A square PNG that does not compress, for want of a real image.

    Args:
        size: Height and width in pixels.
    """
    state, rows = 1, bytearray()
    for _ in range(size):
        rows.append(0)  # PNG filter type: none
        for _ in range(3 * size):
            state = (1103515245 * state + 12345) & 0x7FFFFFFF
            rows.append(state >> 16 & 0xFF)

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)  # 8 bits, RGB
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(rows), 1)),
            chunk(b"IEND", b""),
        ]
    )
