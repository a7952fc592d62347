"""How a reply treats a store that fails: it does without, and leaves it alone for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from edgeseq_core.clock import Clock
from edgeseq_core.errors import StoreError

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 1.0
T = TypeVar("T")


class Patience:
    """Asks a store that may be away; ``lost`` says in the log what is missing meanwhile."""

    def __init__(self, clock: Clock, *, lost: str) -> None:
        self._clock = clock
        self._lost = lost
        self._failing = False
        self._retry_s = 0.0

    def ask(self, question: Callable[[], T]) -> T | None:
        """The store's answer; None while it fails."""
        if self._failing and self._clock.monotonic() < self._retry_s:
            return None
        try:
            answer = question()
        except StoreError as error:
            if not self._failing:
                log.warning(self._lost, reason=str(error))
            self._failing = True
            self._retry_s = self._clock.monotonic() + RETRY_AFTER_S
            return None
        self._failing = False
        return answer
