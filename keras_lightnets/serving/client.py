"""Asks a TensorFlow Serving server (or the stand-in) for predictions.

REST needs the standard library alone. gRPC needs the extra `serve`, and imports TensorFlow.
"""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from keras_lightnets.serving.transport import (
    RETRY_STATUSES,
    ClientError,
    RestTransport,
    RetryPolicy,
)

Image = str | pathlib.Path | bytes

# What an export's `serve_bytes` says when no file of a request can be decoded.
_UNDECODABLE = "holds no image that can be decoded"
_CANNOT_DECODE = "the server cannot decode it"

_URL = re.compile(
    r"(?P<scheme>https?|grpc)://(?P<address>[^/]+)"
    r"(?:/v1/models)?(?:/(?P<model>[^/:]+))?"
    r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?::predict)?/?"
)


class Classes(list[tuple[str, float]]):
    """The most probable classes of an image with their probabilities, best first.

    Attributes:
        known: Whether the image is of any class; None where the model does not tell.
    """

    known: bool | None = None


class Client:
    """A connection to one model of a server. Safe to share between threads.

    Args:
        url: `http://HOST:PORT`, `https://...`, or `grpc://HOST:PORT`; `/v1/models/NAME`,
            `/versions/N` and `/labels/L` may follow.
        model: The model's name, if it is not in the URL. A stand-in server that has only one
            model is asked for it.
        version: A version to insist on; by default the server chooses.
        timeout_s: Seconds for one attempt of a request.
        retries: Further attempts after one that found no server, a busy one (429, 503) or a
            gateway's failure (502, 504). A prediction has no side effect, so repeating it is safe.
        backoff_s: Seconds before the first further attempt; doubled for each next one.
        batch_size: Images sent in one request.

    Raises:
        ValueError: A URL of another form, or an argument out of range.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        version: int | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        backoff_s: float = 0.1,
        batch_size: int = 16,
    ) -> None:
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError(
                "`url` must look like http://HOST:PORT or grpc://HOST:PORT, optionally followed "
                f"by /v1/models/NAME. Received: {url!r}"
            )
        if timeout_s <= 0 or retries < 0 or backoff_s < 0 or batch_size < 1:
            raise ValueError(
                "`timeout_s` and `batch_size` must be positive, `retries` and `backoff_s` not "
                f"negative. Received: {timeout_s}, {batch_size}, {retries}, {backoff_s}"
            )
        self.url = f"{match['scheme']}://{match['address']}"
        self.batch_size = batch_size
        self._model = model or match["model"]
        in_url = match["version"]
        self._version = int(in_url) if version is None and in_url else version
        self._label = match["label"]
        policy = RetryPolicy(timeout_s, retries, backoff_s)
        if match["scheme"] == "grpc":
            from keras_lightnets.serving.grpc_transport import GrpcTransport

            self._transport: Any = GrpcTransport(match["address"], policy)
        else:
            self._transport = RestTransport(self.url, policy)

    @property
    def model(self) -> str:
        """The model's name.

        Raises:
            ClientError: It was not given, and the server does not have exactly one model.
        """
        if self._model is None:
            names = self.models()
            if len(names) != 1:
                raise ClientError(
                    f"{self.url} has the models {', '.join(names)}: add /v1/models/NAME to the URL"
                )
            self._model = names[0]
        return self._model

    def models(self) -> list[str]:
        """The names of the models served. TensorFlow Serving itself does not list them.

        Raises:
            ClientError: The server does not tell.
        """
        try:
            return list(self._transport.models())
        except ClientError as error:
            if error.status is None:
                raise
            raise ClientError(
                f"{self.url} does not list its models: add /v1/models/NAME to the URL",
                error.status,
            ) from error

    def status(self) -> list[dict[str, Any]]:
        """Version, state and error of each version of the model, newest first."""
        return self._transport.status(self._spec())

    def metadata(self) -> dict[str, Any]:
        """The version that answers and its signatures, as TF Serving's JSON gives them."""
        return self._transport.metadata(self._spec())

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Waits for a version to be available. The status code alone does not tell.

        Raises:
            ClientError: None is within `timeout_s`, or the server refuses to say.
        """
        end = time.monotonic() + timeout_s
        while True:
            reason = "no version is available"
            try:
                if any(row["state"] == "AVAILABLE" for row in self.status()):
                    return
            except ClientError as error:
                # A model that is still being loaded is not found.
                if error.status not in (None, 404, *RETRY_STATUSES):
                    raise
                reason = str(error)
            if time.monotonic() > end:
                raise ClientError(f"{self.url} is not ready after {timeout_s:g} s: {reason}")
            time.sleep(0.1)

    def predict(
        self, inputs: Mapping[str, Any], signature_name: str = "serving_default"
    ) -> dict[str, Any]:
        """Runs a signature on named inputs.

        Args:
            inputs: Nested lists, arrays, or lists of `bytes`; the first axis is the batch.
            signature_name: Which signature.

        Returns:
            Output name -> nested lists.

        Raises:
            ClientError: The server refused, failed, or was not reached.
        """
        return self._transport.predict(self._spec(), signature_name, inputs)

    def classify(self, images: Image | Iterable[Image], top: int | None = None) -> list[Classes]:
        """Classifies image files: JPEG, PNG, BMP or GIF.

        Args:
            images: Paths, or the files' contents.
            top: How many classes to return; by default as many as the server names.

        Returns:
            For each image, in order, its most probable classes with their probabilities, best
            first. The list's `known` is False for an image of none of the classes, where the
            model was exported with `--reject`, else None.

        Raises:
            OSError: A file that cannot be read.
            ClientError: The server cannot decode an image; the error names it.
        """
        results = self.ask(images, top)
        for result in results:
            if not isinstance(result, Classes):
                raise ClientError(
                    "The model answers without `classes` and `scores`: was it written by "
                    f"`lightnets export`? It gave {sorted(result)}"
                )
        return results

    def ask(self, images: Image | Iterable[Image], top: int | None = None) -> list[Any]:
        """As `classify`, of a model of any task.

        Returns:
            For each image, in order, its `Classes`, or for another task a dict: `names` of its
            labels or values in their order, and beside them `scores` and `present`, whether each
            label holds; or `values`.
        """
        if isinstance(images, str | pathlib.Path | bytes):
            images = [images]
        images = list(images)
        results: list[Any] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            results += self._ask_batch([_read(image) for image in batch], batch, start)
        for result in results:
            if isinstance(result, Classes):
                del result[top or len(result) :]
        return results

    def _ask_batch(self, contents: list[bytes], images: list[Image], start: int) -> list[Any]:
        try:
            outputs = self.predict({"image_bytes": contents}, "serve_bytes")
        except ClientError as error:
            if error.status != 400:
                raise
            if len(images) == 1:
                reason = _CANNOT_DECODE if _UNDECODABLE in str(error) else error
                message = f"{_name(images[0], start)}: {reason}"
                raise ClientError(message, status=400) from error
            # One bad image fails the request: find out which.
            return [
                self._ask_batch([content], [image], start + i)[0]
                for i, (content, image) in enumerate(zip(contents, images, strict=True))
            ]
        for index, valid in enumerate(outputs.get("valid", [])):
            if not valid:
                message = f"{_name(images[index], start + index)}: {_CANNOT_DECODE}"
                raise ClientError(message, status=400)
        if not {"classes", "scores"} <= outputs.keys():
            columns = (outputs[key] for key in outputs)
            return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
        rows = zip(outputs["classes"], outputs["scores"], strict=True)
        found = [Classes(zip(classes, scores, strict=True)) for classes, scores in rows]
        for image, known in zip(found, outputs.get("known", ()), strict=False):
            image.known = bool(known)
        return found

    def _spec(self) -> tuple[str, int | None, str | None]:
        return self.model, self._version, self._label

    def close(self) -> None:
        """Closes the connection of gRPC; REST has none to keep."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name(image: Image, index: int) -> str:
    return f"Image {index}" if isinstance(image, bytes) else str(image)


def _read(image: Image) -> bytes:
    return image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
