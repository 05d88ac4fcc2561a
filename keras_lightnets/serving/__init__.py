"""Export to TF Serving and other runtimes, a client, and a stand-in server."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module that defines it, imported on first use.
_PUBLIC = {
    "Client": "keras_lightnets.serving.client",
    "ClientError": "keras_lightnets.serving.transport",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_lightnets.serving' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
