"""TF Serving's REST API on Tornado.

Tornado, because it bounds what a client may take: time for headers, time for a body, sizes; it is
pure Python without dependencies, and runs in one thread beside the threads that compute.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import re
import urllib.parse
from collections.abc import Awaitable
from typing import Any

import tornado.httpserver
import tornado.httputil
import tornado.iostream
import tornado.web
from google.protobuf import json_format

from keras_lightnets.serving.server import errors, json_tensor, protos
from keras_lightnets.serving.server.options import METRICS_PATH, ServerOptions
from keras_lightnets.serving.server.predictor import Predictor

log = logging.getLogger("keras_lightnets.serving")

_SPEC = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){_SPEC}:(?P<method>\w+)", re.IGNORECASE)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_SPEC}(?:/(?P<metadata>metadata))?", re.IGNORECASE
)
_MAX_VERSION = 2**63 - 1

# A body above the limit is read and dropped up to this size, so that the client sees the 413
# instead of a broken connection.
_MAX_DROPPED_BYTES = 1 << 30

# JSON above this many bytes is decoded outside the event loop.
_INLINE_BYTES = 1 << 16


@tornado.web.stream_request_body
class _Handler(tornado.web.RequestHandler):
    """Every path. The body is collected here so that its size is checked as it arrives."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")

    def initialize(self, api: RestApi) -> None:
        self.api = api
        self.body: list[bytes] = []
        self.received = 0
        self.held = 0

    def prepare(self) -> None:
        header = self.request.headers.get("Content-Length", "0")
        length = int(header) if header.isdecimal() else 0
        # A client that expects 100 Continue waits for a word before it sends.
        waits = self.request.headers.get("Expect", "").lower() == "100-continue"
        limit = self.api.options.max_body_bytes if waits else _MAX_DROPPED_BYTES
        if length > limit:
            self._fail(self._too_large())

    def data_received(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self.api.options.max_body_bytes:
            self._drop_body()
        elif self.api.hold(len(chunk)):
            self.held += len(chunk)
            self.body.append(chunk)
        else:
            self._drop_body()
            self.received = -1  # no memory for it: 503

    def _drop_body(self) -> None:
        self.body.clear()
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

    async def get(self) -> None:
        await self._handle()

    async def post(self) -> None:
        await self._handle()

    async def _handle(self) -> None:
        self.api.active += 1
        try:
            await self._answer()
        except tornado.iostream.StreamClosedError:
            pass  # the client left before its answer
        finally:
            self.api.active -= 1

    async def _answer(self) -> None:
        if self.api.draining:
            self.set_header("Connection", "close")
        try:
            if self.received > self.api.options.max_body_bytes:
                raise self._too_large()
            if self.received < 0:
                raise errors.ServingError("UNAVAILABLE", "Too many bytes in flight: try again")
            content_type, body = await self.api.answer(
                self.request.method or "", self.request.path, b"".join(self.body)
            )
        except Exception as error:
            await self._fail(errors.from_exception(error))
            return
        self.set_header("Content-Type", content_type)
        await self.finish(body)

    def _fail(self, error: errors.ServingError) -> Awaitable[None]:
        if error.code == "INTERNAL":
            log.error("%s: %s", self.request.path, error.message, exc_info=error.__cause__)
        if error.http_status == 503:
            self.set_header("Retry-After", "1")
        self.set_status(error.http_status, None if error.http_status != 499 else "Cancelled")
        self.set_header("Content-Type", "application/json")
        return self.finish(json.dumps({"error": error.message}))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """For errors Tornado raises itself: an unsupported method, a malformed argument."""
        message = f"Malformed request: {self.request.method} {self.request.path}"
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": message}))

    def compute_etag(self) -> None:
        """No digest of the answer: nobody caches a prediction."""


class RestApi:
    """Routes requests and turns answers into JSON; knows nothing of sockets."""

    def __init__(self, predictor: Predictor, options: ServerOptions) -> None:
        self.predictor, self.options = predictor, options
        self.active = 0  # requests that have not been answered to the last byte
        self.draining = False
        self._held = 0
        self._max_held = 4 * options.max_body_bytes
        # Two threads: large JSON is bound by the interpreter lock anyway, and each body in
        # decoding takes many times its size as Python numbers.
        self._decoders = concurrent.futures.ThreadPoolExecutor(2, "serving-json")

    def hold(self, count: int) -> bool:
        """Counts body bytes in memory; False when there would be too many."""
        if count > 0 and self._held + count > self._max_held:
            self.predictor.metrics.refused.add("bytes")
            return False
        self._held += count
        return True

    async def answer(self, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        """Content type and body of a successful answer.

        Raises:
            ServingError: Anything else.
        """
        if method == "GET" and path == METRICS_PATH:
            return "text/plain; version=0.0.4", self.predictor.metrics.text().encode()
        if method == "POST" and (match := _PREDICT.fullmatch(path)):
            if match["method"].lower() != "predict":
                raise errors.ServingError(
                    "UNIMPLEMENTED",
                    f"Only :predict is served, as Keras models have no :{match['method']}",
                )
            return "application/json", await self._predict(*_spec(match), body)
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            name, version, label = _spec(match)
            if not name:
                # TF Serving refuses this; listing is this server's own addition.
                names = self.predictor.manager.names
                return "application/json", json.dumps({"models": names}).encode()
            if match["metadata"]:
                return "application/json", self._metadata(name, version, label)
            message = protos.model_status(self.predictor.manager, name, version, label)
            return "application/json", _proto_json(message).encode()
        if not path.lower().startswith("/v1/"):
            raise errors.ServingError("NOT_FOUND", f"No such path: {path}")
        raise errors.invalid(f"Malformed request: {method} {path}")

    async def _predict(
        self, name: str, version: int | None, label: str | None, body: bytes
    ) -> bytes:
        predictor = self.predictor
        with predictor.counted(name, "REST"), predictor.admitted():
            try:
                return await asyncio.wait_for(
                    self._predict_admitted(name, version, label, body),
                    self.options.request_timeout_s,
                )
            except TimeoutError as error:
                raise errors.ServingError(
                    "DEADLINE_EXCEEDED",
                    f"No answer within {self.options.request_timeout_s:g} s",
                ) from error

    async def _predict_admitted(
        self, name: str, version: int | None, label: str | None, body: bytes
    ) -> bytes:
        lease = self.predictor.manager.acquire(name, version, label)
        try:
            loop = asyncio.get_running_loop()
            if len(body) <= _INLINE_BYTES:
                decoded = json_tensor.decode_request(body, lease.servable.signature)
            else:
                decoded = await loop.run_in_executor(
                    self._decoders, json_tensor.decode_request, body, lease.servable.signature
                )
            signature, inputs, row_format = decoded
        except BaseException:
            lease.release()
            raise
        future = self.predictor.submit(lease, signature, inputs)
        outputs = await asyncio.wrap_future(future)
        return json_tensor.encode_response(outputs, row_format)

    def _metadata(self, name: str, version: int | None, label: str | None) -> bytes:
        lease = self.predictor.manager.acquire(name, version, label)
        try:
            spec = protos.model_spec(lease.servable)
            signatures = protos.signature_map(lease.servable)
        finally:
            lease.release()
        return (
            f'{{\n"model_spec":{_proto_json(spec)},\n'
            f'"metadata": {{"signature_def": {_proto_json(signatures)}}}\n}}\n'
        ).encode()

    def close(self) -> None:
        """Stops the threads that decode."""
        self._decoders.shutdown(cancel_futures=True)


def _spec(match: re.Match[str]) -> tuple[str, int | None, str | None]:
    version, label = match["version"], match["label"]
    if version and int(version) > _MAX_VERSION:
        raise errors.invalid(f"Failed to convert version: {version} to numeric.")
    return (
        urllib.parse.unquote(match["name"] or ""),
        int(version) if version else None,
        urllib.parse.unquote(label) if label else None,
    )


def _proto_json(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


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
    application = tornado.web.Application(
        [(r"/.*", _Handler, {"api": api})], log_function=_log_request
    )
    server = _Server(
        application,
        idle_connection_timeout=options.header_timeout_s,
        body_timeout=options.body_timeout_s,
        max_header_size=1 << 14,
        max_body_size=max(options.max_body_bytes, _MAX_DROPPED_BYTES),
        chunk_size=1 << 16,
    )
    server.max_connections = options.max_connections
    return server
