"""The server's log, in which a name cannot pretend to be a line of its own."""

from __future__ import annotations

import logging

from keras_lightnets.text import visible

log = logging.getLogger("keras_lightnets.serving")


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = visible(record.getMessage()), None
    return True


log.addFilter(_escape)
