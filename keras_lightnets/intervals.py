"""How sure a share or a mean is that was found on some images."""

from __future__ import annotations

import math
from typing import Any


def interval(right: int, images: int) -> tuple[float, float]:
    """Returns between which shares the true one lies with 95 %: Wilson's interval."""
    from scipy.stats import binomtest

    found = binomtest(right, images).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def of_mean(errors: Any) -> tuple[float, float, float]:
    """Returns the mean of sizes of errors `(images,)`, and between which it lies with 95 %."""
    mean = float(errors.mean())
    reach = 1.96 * float(errors.std()) / math.sqrt(len(errors))
    return mean, max(mean - reach, 0.0), mean + reach
