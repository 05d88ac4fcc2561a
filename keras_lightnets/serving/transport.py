"""How requests travel: HTTP with retries, from the standard library."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from keras_lightnets.text import first_line

Spec = tuple[str, int | None, str | None]  # model, version, label

# What TF Serving's REST API answers where gRPC has these codes; the others count as 500.
HTTP_STATUSES = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}

# Busy, or a gateway in between failed; everything else would fail again.
RETRY_STATUSES = (429, 502, 503, 504)
_MAX_BACKOFF_S = 10.0


class ClientError(Exception):
    """A request failed; the text is one line for the user.

    Attributes:
        status: The HTTP status (for gRPC the one TF Serving maps to), None if no server answered.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Seconds for one attempt, further attempts, seconds before the first of them."""

    timeout_s: float
    retries: int
    backoff_s: float

    def run(self, attempt: Callable[[], Any]) -> Any:
        """Calls `attempt` until it succeeds, fails for good, or was tried often enough."""
        for number in range(self.retries + 1):
            try:
                return attempt()
            except ClientError as error:
                final = error.status is not None and error.status not in RETRY_STATUSES
                if final or number == self.retries:
                    raise
                # Jitter, so that clients turned away together do not come back together.
                wait = self.backoff_s * 2**number * random.uniform(0.5, 1.5)
                time.sleep(min(max(wait, error.retry_after_s or 0.0), _MAX_BACKOFF_S))
        raise RuntimeError("unreachable")


class RestTransport:
    """TF Serving's REST API. Each request has a connection of its own; no proxy is asked.

    Args:
        url: `http://HOST:PORT` or `https://HOST:PORT`.
        policy: Time-out and retries.
    """

    def __init__(self, url: str, policy: RetryPolicy) -> None:
        self._url, self._policy = url, policy
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def models(self) -> list[str]:
        return self._send("/v1/models")["models"]

    def status(self, spec: Spec) -> list[dict[str, Any]]:
        return self._send(_path(spec))["model_version_status"]

    def metadata(self, spec: Spec) -> dict[str, Any]:
        return self._send(f"{_path(spec)}/metadata")

    def predict(self, spec: Spec, signature_name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Client.predict`."""
        document = {
            "signature_name": signature_name,
            "inputs": {name: _json_ready(value) for name, value in inputs.items()},
        }
        outputs = self._send(f"{_path(spec)}:predict", json.dumps(document).encode())["outputs"]
        # TF Serving leaves the name out when there is only one output.
        return outputs if isinstance(outputs, dict) else {"output": outputs}

    def close(self) -> None:
        """Nothing is open."""

    def _send(self, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(self._url + path, body, headers)
        return self._policy.run(lambda: self._answer(request))

    def _answer(self, request: urllib.request.Request) -> Any:
        try:
            try:
                response = self._opener.open(request, timeout=self._policy.timeout_s)
            except urllib.error.HTTPError as refusal:
                response = refusal
            with response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        try:
            document = json.loads(content)
        except ValueError as error:
            message = f"{self._url} answered {response.status} without JSON: is it TF Serving?"
            raise ClientError(message, response.status) from error
        if response.status == 200:
            return document
        text = document.get("error", content) if isinstance(document, dict) else content
        after = response.headers.get("Retry-After", "")
        raise ClientError(
            f"{self._url} answered {response.status}: {text}",
            response.status,
            float(after) if after.isdecimal() else None,
        )

    def _unreachable(self, error: Exception) -> ClientError:
        reason = getattr(error, "reason", error)  # urllib wraps what happens before the answer
        if isinstance(reason, TimeoutError):
            return ClientError(f"{self._url} did not answer within {self._policy.timeout_s:g} s")
        if isinstance(reason, http.client.BadStatusLine) and not isinstance(reason, OSError):
            text = "it does not speak HTTP (gRPC has a port of its own)"
        else:
            text = first_line(reason) if isinstance(reason, Exception) else reason
        return ClientError(f"Cannot reach {self._url}: {text}")


def _path(spec: Spec) -> str:
    model, version, label = spec
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    return f"{path}/labels/{urllib.parse.quote(label, safe='')}" if label else path


def _json_ready(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    if hasattr(value, "tolist"):  # an array
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value] if _has_bytes(value) else value
    return value


def _has_bytes(value: Any) -> bool:
    """Looks along the first items only: the items of a tensor are all alike."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, bytes)
