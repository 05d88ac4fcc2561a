"""How sure a share is that was counted on some images."""

from __future__ import annotations


def interval(right: int, images: int) -> tuple[float, float]:
    """Returns between which shares the true one lies with 95 %: Wilson's interval."""
    from scipy.stats import binomtest

    found = binomtest(right, images).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)
