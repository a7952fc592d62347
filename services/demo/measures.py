"""Percentiles of samples, and the pace of a producer that its learner can follow."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing.

    >>> [percentile([4, 1, 3, 2], share) for share in (0.5, 0.95, 1.0)], percentile([], 0.5)
    ([2, 4, 4], None)
    """
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Samples:
    """Measured seconds; added by one thread, read by others."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """One more."""
        with self._lock:
            self._values.append(seconds)

    def percentile(self, share: float) -> float | None:
        """Seconds; None of nothing."""
        with self._lock:
            return percentile(self._values, share)

    def as_dict(self, *shares: int) -> dict[str, Any]:
        """How many, and percentiles in seconds, as ``p50`` for share 50."""
        found: dict[str, Any] = {"count": len(self._values)}
        for share in shares:
            value = self.percentile(share / 100)
            found[f"p{share}"] = None if value is None else round(value, 4)
        return found


class Pace:
    """A steady rate that never runs more than ``ahead`` pairs before the learner.

    >>> pace = Pace(rate=10, ahead=30, now_s=0.0)
    >>> pace.due(now_s=0.5, backlog=0), pace.due(now_s=0.5, backlog=5)
    (5, 0)
    >>> pace.due(now_s=1.0, backlog=29), pace.due(now_s=1.1, backlog=0)
    (1, 5)
    >>> pace.due(now_s=60.0, backlog=0)  # what was missed while waiting is not made up at once
    10
    """

    def __init__(self, *, rate: float, ahead: int, now_s: float) -> None:
        self._rate, self._ahead = rate, ahead
        self._credit, self._at_s = 0.0, now_s

    def due(self, *, now_s: float, backlog: int) -> int:
        """How many pairs to send now; they count as sent."""
        most = max(1.0, self._rate)  # of one second
        self._credit = min(most, self._credit + self._rate * (now_s - self._at_s))
        self._at_s = now_s
        count = max(0, min(int(self._credit + 1e-9), self._ahead - backlog))
        self._credit -= count
        return count
