"""The one error that a request can end with, under the names gRPC and TF Serving use."""

from __future__ import annotations

import grpc

from keras_lightnets.serving.transport import HTTP_STATUSES

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class ServingError(Exception):
    """A request or a load failed.

    Args:
        code: The name of a `grpc.StatusCode`.
        message: What was wrong, for the caller to read.
        http_status: Overrides the status of `code` (413 has no code).
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.number = grpc.StatusCode[code].value[0]
        self.http_status = http_status or HTTP_STATUSES.get(code, 500)


def invalid(message: str) -> ServingError:
    """The caller's input is wrong."""
    return ServingError("INVALID_ARGUMENT", message)


def late(limit_s: float) -> ServingError:
    """A request took longer than it may."""
    return ServingError("DEADLINE_EXCEEDED", f"No answer within {limit_s:g} s")


def describe(error: BaseException) -> ServingError:
    """Returns any exception, TensorFlow's among them, as a new `ServingError`.

    It was never raised, so it holds no traceback. An error kept in a local variable of a frame
    that its own traceback names would be a cycle, and with it the request's body would stay in
    memory until the garbage collector happens to look there.
    """
    if isinstance(error, ServingError):
        return ServingError(error.code, error.message, error.http_status)
    number = getattr(error, "error_code", None)  # tf.errors.OpError
    if isinstance(number, int) and number in _NAMES:
        # TensorFlow appends the op's Python stack; the first lines name the fault.
        message = str(getattr(error, "message", error)).split("\n\nOriginal stack trace")[0]
        message = " ".join(message.split()).removeprefix("Graph execution error: ")
        return ServingError(_NAMES[number], message)
    return ServingError("INTERNAL", f"{type(error).__name__}: {error}")
