"""The one error that a request can end with, under the names gRPC and TF Serving use."""

from __future__ import annotations

# Canonical code -> (number in `google.rpc.Code`, HTTP status TF Serving answers with).
CODES = {
    "OK": (0, 200),
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}

_NAMES = {number: name for name, (number, _) in CODES.items()}


class ServingError(Exception):
    """A request or a load failed.

    Args:
        code: A key of `CODES`.
        message: What was wrong, for the caller to read.
        http_status: Overrides the status of `code` (413 has no canonical code).
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.number, status = CODES[code]
        self.http_status = http_status or status


def invalid(message: str) -> ServingError:
    """The caller's input is wrong."""
    return ServingError("INVALID_ARGUMENT", message)


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
