"""Micro-batches: as many rows as wait, but never a long wait for more.

A request that finds the engine idle goes out at once, alone or with those that arrived with it.
Only one that arrived while the engine was busy waits for others, and no longer than the bound.
"""

from __future__ import annotations

from edgeseq_core.clock import Clock
from edgeseq_core.serving.admission import Admission, Taken


class Batcher:
    """Takes the next batch from the queue; used by one thread."""

    def __init__(
        self, admission: Admission, *, max_rows: int, max_wait_ms: float, clock: Clock
    ) -> None:
        self._admission = admission
        self._max_rows = max_rows
        self._max_wait_s = max_wait_ms / 1000
        self._clock = clock

    def next(self, *, idle_s: float) -> Taken:
        """The next batch; empty after ``idle_s`` seconds without a request."""
        ready, oldest_s = self._admission.ready()
        if oldest_s is None:
            self._admission.wait(idle_s)
        elif ready < self._max_rows:
            left_s = oldest_s + self._max_wait_s - self._clock.monotonic()
            if left_s > 0:
                self._admission.wait(left_s, above=self._max_rows - 1)
        return self._admission.take(self._max_rows)
