"""Tiny SavedModels with the signatures of an export, and servers for them in child processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import tensorflow as tf

from lightnets.cli import main
from tests import processes

LABELS = ["red", "green", "blue"]
SIZE = 8  # pixels


class ColourModel(tf.Module):
    """Says which colour an image has most of; `scale` tells versions apart."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = tf.Variable(scale, dtype=tf.float32)
        self.labels = tf.constant(LABELS)

    def _outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2]) / 255.0
        probabilities = tf.nn.softmax(self.scale * means)
        scores, indices = tf.math.top_k(probabilities, 2)
        classes = tf.gather(self.labels, indices)
        return {"probabilities": probabilities, "classes": classes, "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8, name="images")])
    def serving_default(self, images):
        return self._outputs(images)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve_bytes(self, image_bytes):
        def decode(content):
            image = tf.io.decode_image(content, 3, expand_animations=False)
            return tf.image.resize(image, (SIZE, SIZE))

        return self._outputs(tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 224, 224, 3), tf.float32, name="images")])
    def large(self, images):
        return {"mean": tf.reduce_mean(images, [1, 2, 3])}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def echo(self, x):
        return {"x": x, "text_bytes": tf.strings.as_string(x)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def rows(self, x):
        """How many rows ran together: what merging and padding made of a request."""
        return {"rows": tf.zeros_like(x) + tf.cast(tf.size(x), tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64, name="count")])
    def much(self, count):
        """An answer of any size, and a scalar string."""
        return {"zeros": tf.zeros([count], tf.int64), "text": tf.strings.as_string(count)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def exotic(self, x):
        return {"half": tf.cast(x, tf.half), "complex": tf.cast(x, tf.complex64)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="seconds")])
    def wait(self, seconds):
        end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
        tf.while_loop(lambda t: t < end, lambda t: [tf.timestamp()], [tf.timestamp()])
        with tf.control_dependencies([tf.identity(end)]):
            return {"seconds": tf.identity(seconds)}


class KnowingModel(ColourModel):
    """Knows only images of which it is sure, as one exported with `--reject` does."""

    def _outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = super()._outputs(images)
        return answer | {"known": answer["scores"][:, 0] > 0.9}


def write_version(
    base_path: pathlib.Path,
    version: int,
    scale: float = 5.0,
    kind: type[ColourModel] = ColourModel,
) -> pathlib.Path:
    """Publishes a version as an export does: a hidden sibling, then a rename."""
    base_path.mkdir(parents=True, exist_ok=True)
    temporary = base_path / f".{version}.tmp"
    model = kind(scale)
    names = [name for name, value in vars(ColourModel).items() if hasattr(value, "python_function")]
    tf.saved_model.save(model, str(temporary), signatures={n: getattr(model, n) for n in names})
    return temporary.rename(base_path / str(version))


def colour_png(colour: str, size: int = 20) -> bytes:
    """An image of one of the colours in `LABELS`."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., LABELS.index(colour)] = 250
    return tf.io.encode_png(pixels).numpy()


def _serve(output: Connection, arguments: list[str]) -> None:
    """What a forked server runs: the command, with its output going into a pipe."""
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    code = main(["serve", *arguments])
    sys.stdout.flush()
    os._exit(code)


class ForkedServer:
    """The command in a process in which TensorFlow is already imported: seconds faster.

    It has what `ServeProcess` needs of a `subprocess.Popen`.
    """

    def __init__(self, arguments: list[str]) -> None:
        ours, theirs = processes._context.Pipe(duplex=False)
        self._process = processes._context.Process(target=_serve, args=(theirs, arguments))
        self._process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()))
        ours.close()
        self.pid = self._process.pid
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("lightnets serve", timeout_s)
        return self._process.exitcode


class ServeProcess:
    """`lightnets serve` in a child process, with its output collected.

    Args:
        args: Of the command.
        env: Changes of the environment.
        engine: What `--engine` is given; "auto" would take a real server that is on `PATH`.
        forked: Whether to take the short cut of `ForkedServer`.
    """

    def __init__(
        self,
        *args: object,
        env: dict[str, str] | None = None,
        engine: str = "embedded",
        forked: bool = False,
    ) -> None:
        arguments = [*map(str, args), "--engine", engine]
        if forked:
            self.process: Any = ForkedServer(arguments)
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lightnets.cli", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **(env or {})},
            )
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("Ready at "):
                self._ready.set()
        self._ready.set()

    def wait_ready(self) -> ServeProcess:
        """Waits for the line that says so; fails with the output if the server ends instead."""
        self._ready.wait(120)
        if not any(line.startswith("Ready at ") for line in self.lines):
            raise AssertionError(f"not ready: {self.output}")
        return self

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        """Waits until the output contains `text`."""
        end = time.monotonic() + timeout_s
        while text not in self.output:
            assert time.monotonic() < end, f"no {text!r} in {self.output}"
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return re.search(r"^Ready at (\S+)", self.output, re.MULTILINE)[1]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def grpc_url(self) -> str:
        return re.search(r"gRPC (grpc://[^/\s]+)", self.output)[1]

    def wait_exit(self, timeout_s: float = 60) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()


@contextlib.contextmanager
def serving(*args: object, **options: Any) -> Iterator[ServeProcess]:
    """A server on free ports, ready to answer; `options` are those of `ServeProcess`."""
    server = ServeProcess(*args, "--rest-port", 0, "--port", 0, **options)
    try:
        yield server.wait_ready()
    finally:
        server.close()


JSON = {"Content-Type": "application/json"}


def ask(server, path, document=None, *, body=None, method=None, headers=None):
    """`(status, parsed JSON)` of one request on a fresh connection."""
    if document is not None:
        body = json.dumps(document).encode()
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    try:
        method = method or ("GET" if body is None else "POST")
        connection.request(method, path, body, {**JSON, **(headers or {})})
        response = connection.getresponse()
        content = response.read()
        if not content:
            return response.status, None
        assert response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(content)
    finally:
        connection.close()


def resident_mib(server) -> float:
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
