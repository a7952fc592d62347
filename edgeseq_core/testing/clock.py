"""A clock that moves only when told."""

from __future__ import annotations


class FakeClock:
    """Both times start at a fixed moment and move together.

    >>> clock = FakeClock()
    >>> clock.advance(0.25)
    >>> clock.monotonic(), clock.wall_ms()
    (0.25, 1700000000250)
    """

    def __init__(self, *, wall_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = wall_ms
        self._now_s = 0.0

    def advance(self, seconds: float) -> None:
        """Move both times on."""
        self._now_s += seconds

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._now_s

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._start_ms + round(self._now_s * 1000)
