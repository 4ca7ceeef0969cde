"""Several measurements of one value: the median, and its confidence interval."""

import math
import statistics
from collections.abc import Sequence
from typing import Self

import msgspec

CONFIDENCE = 0.95


class Spread(msgspec.Struct, frozen=True):
    """A median and its interval.

    The interval is made of order statistics, so it assumes nothing about the distribution: with a
    probability of 95 % or more the true median lies between the k-th lowest and the k-th highest
    value. With 6 to 8 values these are the lowest and the highest; also with fewer, where the
    probability is smaller.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Compute it from values; None if there are none."""
        if not values:
            return None
        ordered = sorted(values)
        rank = interval_rank(len(ordered))
        return cls(statistics.median(ordered), ordered[rank - 1], ordered[-rank])


def interval_rank(count: int, confidence: float = CONFIDENCE) -> int:
    """Return the largest k such that the interval from the k-th lowest to the k-th highest is
    reliable.

    The median is outside if fewer than k values lie on one side: a binomial tail, twice.
    """
    rank, tail = 1, 2 * 0.5**count
    while True:
        tail += 2 * math.comb(count, rank) * 0.5**count
        if tail > 1 - confidence or 2 * (rank + 1) > count:
            return rank
        rank += 1
