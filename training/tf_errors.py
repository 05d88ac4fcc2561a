"""What a TensorFlow error is about, in one line."""

from __future__ import annotations

_NOISE = (
    "Graph execution error",
    "Detected at node",
    "File ",
    "[[{{node",
    "Detected unsupported",
    "<stack",
)


def reason(error: BaseException) -> str:
    """Returns the first line of an error that says something to a user."""
    text = getattr(error, "message", None) or str(error)
    if "No space left" in text:
        return "the disk is full"
    lines = (line.strip() for line in text.splitlines())
    told = (line for line in lines if line and not line.startswith(_NOISE))
    return next(told, type(error).__name__)[:200]
