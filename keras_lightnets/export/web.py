"""A folder that classifies pictures in a browser, checked in one.

`index.html` is the page, `classify.js` the module that prepares pictures and asks the network,
`model.onnx`, which ONNX Runtime Web (`ort*`) runs. `metadata.json` has what both need to know.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import pathlib
import queue
import string
import tarfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lightnets.errors import ExportError
from keras_lightnets.export import browser, bundle, parity
from keras_lightnets.export.answers import Answer
from keras_lightnets.export.described import Description
from keras_lightnets.inference.rejection import Rejection
from keras_lightnets.page import page
from keras_lightnets.preprocessing import EvalTransform, decode_image
from keras_lightnets.weights import downloads

MODEL = "model.onnx"
VERSION = "1.30.0"
# The build for one thread works from any server: threads need special headers. No WebGPU.
_PARTS = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_DIGEST = (
    "sha512:ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
_TEMPLATES = pathlib.Path(__file__).parent / "templates" / "web"
_IMAGES = 100  # A browser takes one after the other, and decodes whole photographs.
_SILENCE_S = 300  # for a picture; the first waits for the browser and the network


def runtime() -> pathlib.Path:
    """Returns the archive of ONNX Runtime Web, 33 MB, downloaded if it is not in the cache.

    Raises:
        ExportError: It cannot be downloaded, or is another file; says what to do.
    """
    file = f"onnxruntime-web-{VERSION}.tgz"
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org"
    url = f"{registry.rstrip('/')}/onnxruntime-web/-/{file}"
    try:
        return downloads.fetch_file(downloads.home() / downloads.FOLDER / file, url, _DIGEST)
    except ValueError as error:
        raise ExportError(f"The format 'web' needs ONNX Runtime Web. {error}") from None


def program() -> str:
    """Returns the browser that checks the folder.

    Raises:
        ExportError: There is none.
    """
    if found := browser.find():
        return found
    names = ", ".join(browser.NAMES)
    raise ExportError(
        f"The format 'web' is checked in Chromium, and there is none of {names} on PATH. On "
        "Debian: apt install chromium"
    )


def complete(
    folder: pathlib.Path,
    about: Description,
    model: keras.Model,
    held_out: parity.HeldOut,
    max_accuracy_drop: float | None,
    max_files_drop: float,
    tolerance: float,
    rejection: Rejection | None = None,
) -> dict[str, Any]:
    """Puts the page and its runtime beside the network in `folder` and asks the page.

    Args:
        folder: Has `MODEL`.
        about: What the page says and does.
        model: That the answers are compared with.
        held_out: Images to compare on, of which up to 100 are taken.
        max_accuracy_drop: See `parity.compare`, for pixels decoded here.
        max_files_drop: What accuracy may fall by where the browser decodes the files.
        tolerance: Largest difference of two probabilities.
        rejection: That the network was written with, if any.

    Returns:
        The comparison; `files_top1_agreement` is that of the files as they are.

    Raises:
        ExportError: The browser does not run the page, or (ParityError) answers differently.
    """
    extra = {"name": about.name, "labels": list(about.labels), "transform": dict(about.transform)}
    bundle.write_extra(folder, about.labels, extra)
    (folder / "index.html").write_text(page(_TEMPLATES / "page.js"), encoding="utf-8")
    (folder / "classify.js").write_bytes((_TEMPLATES / "classify.js").read_bytes())
    readme = string.Template((_TEMPLATES / "README.md").read_text(encoding="utf-8"))
    text = readme.substitute(name=about.name, version=VERSION)
    (folder / "README.md").write_text(text, encoding="utf-8")
    with tarfile.open(runtime()) as archive:
        for part in _PARTS:
            content: Any = archive.extractfile(f"package/dist/{part}")
            (folder / part).write_bytes(content.read())

    some = _some(held_out)
    transform = EvalTransform.from_dict(about.transform)
    expected = parity.reference(model, some, transform, rejection)
    answers = expected.answers[parity.IMAGE_BYTES]
    # Decoders are the browser's: first pixels that all decode alike.
    png = _to_png(transform)
    alike = [png(tf.constant(file)).numpy() for file in expected.files]
    received = _asked(folder, [*alike, *expected.files])
    one, two = (
        Answer(rows[:, : len(about.labels)], None if rejection is None else rows[:, -1] > 0.5)
        for rows in (received[: len(alike)], received[len(alike) :])
    )
    found = parity.compare("web", answers, one, some.labels, max_accuracy_drop, tolerance)
    files = parity.compare("web, the files as they are", answers, two, some.labels, max_files_drop)
    return found | {"files_top1_agreement": files["top1_agreement"]}


def _some(held_out: parity.HeldOut) -> parity.HeldOut:
    """Returns images spread over all, which are often sorted by class."""
    count = len(held_out.images)
    places = np.linspace(0, count - 1, min(count, _IMAGES)).astype(int)
    labels = None if held_out.labels is None else held_out.labels[places]
    files = None if held_out.files is None else [held_out.files[place] for place in places]
    return parity.HeldOut(held_out.images[places], labels, files)


def _to_png(transform: EvalTransform) -> Any:
    """Returns a function from an image file to a PNG file of its pixels, scalar strings."""
    how = transform.background, transform.scale_16_bit
    return tf.function(lambda contents: tf.io.encode_png(decode_image(contents, *how)))


def _asked(folder: pathlib.Path, files: Sequence[bytes]) -> np.ndarray:
    """Returns what the page in `folder` gives for image files: probabilities, and if known."""
    answers: queue.Queue[bytes | ExportError] = queue.Queue()
    rows = []
    with _served(folder, files, answers) as url, browser.opened(program(), url) as process:
        waited = 0
        while len(rows) < len(files):
            try:
                answer = answers.get(timeout=1)
            except queue.Empty:
                waited += 1
                if process.poll() is not None or waited > _SILENCE_S:
                    reason = "ended" if process.poll() is not None else "gave no answer"
                    raise ExportError(f"The browser that checks the page {reason}.") from None
                continue
            if isinstance(answer, ExportError):
                raise answer
            rows.append(np.frombuffer(answer, "<f4"))
            waited = 0
    return np.stack(rows)


@contextlib.contextmanager
def _served(
    folder: pathlib.Path, files: Sequence[bytes], answers: queue.Queue[bytes | ExportError]
) -> Iterator[str]:
    """Serves `folder`, and a page that asks the one in it about `files`; yields its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self) -> None:
            name, _, number = self.path[1:].partition("/")
            if self.path == "/check.html":
                self.answer(200, (_TEMPLATES / "check.html").read_bytes(), "text/html")
            elif name == "held-out":
                known = int(number) < len(files)
                self.answer(200 if known else 404, files[int(number)] if known else b"")
            else:
                super().do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            failure = ExportError(f"The page fails: {body.decode(errors='replace')}")
            answers.put(body if self.path == "/answer" else failure)
            self.answer(200, b"")

        def answer(self, status: int, content: bytes, kind: str = "image/*") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/check.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
