"""How long a call takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

# Calls that are timed, after those in which a runtime prepares.
_TIMED, _WARM_UP = 20, 3


def milliseconds(call: Callable[[], object]) -> float:
    """Returns the median time of `call`, which waits for its result."""
    times = []
    for _ in range(_WARM_UP + _TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[_WARM_UP:])
