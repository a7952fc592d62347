"""Time as a parameter, so that what time decides can be tested."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two kinds of time: one to measure with, one to compare with other machines."""

    def monotonic(self) -> float:
        """Seconds since an unknown moment; never goes back."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since an unknown moment; never goes back."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000
