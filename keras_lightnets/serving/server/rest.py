"""TF Serving's REST API on Tornado.

Tornado, because it bounds what a client may take: time for headers, time for a body, sizes; it is
pure Python without dependencies, and runs in one thread beside the threads that compute.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
import urllib.parse
from typing import Any

import tornado.httpserver
import tornado.iostream
import tornado.web

from keras_lightnets.page import page
from keras_lightnets.serving.grpc_transport import as_dict
from keras_lightnets.serving.server import errors, json_tensor
from keras_lightnets.serving.server.log import log
from keras_lightnets.serving.server.manager import ModelManager
from keras_lightnets.serving.server.options import ServerOptions
from keras_lightnets.serving.server.predictor import Predictor

_SPEC = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_SPEC}:(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_SPEC}(?:/(?P<metadata>metadata))?",
    re.IGNORECASE | re.ASCII,
)
_MAX_VERSION = 2**63 - 1
_PAGE = page(pathlib.Path(__file__).with_name("page.js"))

# A body above the limit is read and dropped up to this size, so that the client sees the 413
# instead of a broken connection.
_MAX_DROPPED_BYTES = 1 << 30


@tornado.web.stream_request_body
class _Handler(tornado.web.RequestHandler):
    """Every path. The body is collected here so that its size is checked as it arrives."""

    def initialize(self, api: RestApi) -> None:
        self.api = api
        self.chunks: list[bytes] = []
        self.held = 0
        self.refusal: errors.ServingError | None = None

    async def prepare(self) -> None:
        # A client that expects 100 Continue waits for a word before it sends.
        waits = self.request.headers.get("Expect", "").lower() == "100-continue"
        limit = self.api.options.max_body_bytes if waits else _MAX_DROPPED_BYTES
        length = self.request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > limit:
            await self._refuse(self._too_large())

    def data_received(self, chunk: bytes) -> None:
        if self.refusal is not None:
            return
        if self.held + len(chunk) > self.api.options.max_body_bytes:
            self.refusal = self._too_large()
        elif not self.api.hold(len(chunk)):
            self.refusal = errors.ServingError("UNAVAILABLE", "Too many bytes in flight: try again")
        if self.refusal is not None:
            self._drop_body()
            return
        self.held += len(chunk)
        self.chunks.append(chunk)

    def _drop_body(self) -> None:
        self.chunks.clear()
        self.api.hold(-self.held)
        self.held = 0

    def on_finish(self) -> None:
        self._drop_body()

    def on_connection_close(self) -> None:
        self._drop_body()

    def _too_large(self) -> errors.ServingError:
        limit = self.api.options.max_body_bytes
        message = f"Request body is larger than {limit} bytes: send fewer or smaller images"
        return errors.ServingError("INVALID_ARGUMENT", message, http_status=413)

    async def _handle(self) -> None:
        self.api.active += 1
        try:
            await self._answer()
        except tornado.iostream.StreamClosedError:
            pass  # the client left before its answer
        finally:
            self.api.active -= 1

    get = head = post = put = delete = patch = options = _handle

    async def _answer(self) -> None:
        if self.api.draining:
            self.set_header("Connection", "close")
        failure = self.refusal
        if failure is None:
            body = b"".join(self.chunks)
            self.chunks.clear()
            method, path = self.request.method or "", self.request.uri or ""
            try:
                answer = await self.api.answer(method, path, body)
            except Exception as error:
                failure = errors.describe(error)
                if failure.code == "INTERNAL":
                    log.exception("%s failed", path)
        if failure is not None:
            await self._refuse(failure)
        else:
            await self._send(answer)

    async def _refuse(self, error: errors.ServingError) -> None:
        if error.http_status == 503:
            self.set_header("Retry-After", "1")
        self.set_status(error.http_status, None if error.http_status != 499 else "Cancelled")
        await self._send(json.dumps({"error": error.message}).encode())

    async def _send(self, body: bytes) -> None:
        """Gives the client as long to take the answer as it had to send the request."""
        self.set_header("Content-Type", "application/json")
        try:
            async with asyncio.timeout(self.api.options.client_timeout_s):
                await self.finish(body)
        except TimeoutError:
            log.warning("%s dropped: it does not take its answer", self.request.remote_ip)
            connection: Any = self.request.connection  # of HTTP/1
            connection.stream.close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """For errors Tornado raises itself: an unsupported method, a malformed argument."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": _malformed(self.request.method, self.request.path)}))

    def compute_etag(self) -> None:
        """No digest of the answer: nobody caches a prediction."""


class _Page(tornado.web.RequestHandler):
    """A page for a person with a browser and a picture. It asks this server and nobody else."""

    def get(self) -> None:
        self.finish(_PAGE)


class RestApi:
    """Routes requests and turns answers into JSON; knows nothing of sockets."""

    def __init__(self, manager: ModelManager, predictor: Predictor, options: ServerOptions) -> None:
        self._manager, self._predictor, self.options = manager, predictor, options
        self.active = 0  # requests that have not been answered to the last byte
        self.draining = False
        self._held = 0
        self._max_held = 4 * options.max_body_bytes

    def hold(self, count: int) -> bool:
        """Counts body bytes in memory; False when there would be too many."""
        if count > 0 and self._held + count > self._max_held:
            return False
        self._held += count
        return True

    async def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Body of a successful answer.

        Args:
            method: Of HTTP.
            path: With the query; as in TF Serving, that never fits anything.
            body: Of the request.

        Raises:
            ServingError: Anything else.
        """
        if method == "POST" and (match := _PREDICT.fullmatch(path)):
            name, version = _spec(match)
            if match["method"] == "predict":
                return await self._answer_in_time(name, version, body)
            if match["method"] in ("classify", "regress"):
                raise errors.ServingError(
                    "UNIMPLEMENTED",
                    f"Only :predict is served, as Keras models have no :{match['method']}",
                )
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            name, version = _spec(match)
            if not name and path.rstrip("/").endswith("models"):
                # TF Serving refuses this; listing is this server's own addition.
                return json.dumps({"models": self._manager.names}).encode()
            if match["metadata"] == "metadata":
                with self._manager.acquire(name, version) as servable:
                    spec, signatures = servable.spec(), servable.signature_map
                metadata = {"signature_def": as_dict(signatures)}
                return _indented({"model_spec": as_dict(spec), "metadata": metadata})
            return _indented(as_dict(self._manager.status(name, version)))
        if not path.lower().startswith("/v1/"):
            raise errors.ServingError("NOT_FOUND", f"No such path: {path}")
        raise errors.invalid(_malformed(method, path))

    async def _answer_in_time(self, name: str, version: int | str | None, body: bytes) -> bytes:
        limit_s = self.options.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.wrap_future(
                    self._predictor.submit(self._predict, name, version, body)
                )
        except TimeoutError:
            raise errors.late(limit_s) from None

    def _predict(self, name: str, version: int | str | None, body: bytes) -> bytes:
        request = json_tensor.members(body)
        signature_name = json_tensor.signature_name(request)
        with self._manager.acquire(name, version) as servable:
            signature = servable.signature(
                signature_name,
                "INVALID_ARGUMENT",
                'Serving signature name: "{}" not found in signature def',
            )
            inputs, in_rows = json_tensor.inputs(request, signature)
            outputs = servable.run(signature, inputs)
        return json_tensor.encode_response(outputs, in_rows)


def _spec(match: re.Match[str]) -> tuple[str, int | str | None]:
    """Model and version or label that a path names.

    Raises:
        ServingError: No number of a version.
    """
    version, label = match["version"], match["label"]
    number = urllib.parse.unquote(label) if label else None
    if version:
        # Python does not convert thousands of digits.
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) > _MAX_VERSION:
            shown = version if len(version) <= 40 else f"{version[:40]}..."
            raise errors.invalid(f"Failed to convert version: {shown} to numeric.")
        number = int(digits)
    return urllib.parse.unquote(match["name"] or ""), number


def _malformed(method: str | None, path: str) -> str:
    return f"Malformed request: {method} {path}"


def _indented(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


def _log_request(handler: tornado.web.RequestHandler) -> None:
    request = handler.request
    log.info(
        "%s %s %s %d %.1f ms",
        request.remote_ip,
        request.method,
        request.uri,
        handler.get_status(),
        1000 * request.request_time(),
    )


class _Server(tornado.httpserver.HTTPServer):
    """Refuses connections beyond a number, so that idle ones cannot use up file descriptors."""

    max_connections: int

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple) -> None:
        if len(self._connections) >= self.max_connections:
            stream.close()
            return
        super().handle_stream(stream, address)


def http_server(api: RestApi) -> tornado.httpserver.HTTPServer:
    """The HTTP server for an API; the caller adds sockets."""
    options = api.options
    page: list[Any] = [(r"/", _Page)] if options.page else []
    application = tornado.web.Application(
        [*page, (r"/.*", _Handler, {"api": api})], log_function=_log_request
    )
    server = _Server(
        application,
        decompress_request=True,
        idle_connection_timeout=options.client_timeout_s,
        body_timeout=options.client_timeout_s,
        max_header_size=1 << 14,
        max_body_size=max(options.max_body_bytes, _MAX_DROPPED_BYTES),
        chunk_size=1 << 16,
    )
    server.max_connections = options.max_connections
    return server
