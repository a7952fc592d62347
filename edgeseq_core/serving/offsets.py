"""Which offsets may be committed: all before the first record that is not settled yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class TopicOffset(NamedTuple):
    """One record of one partition."""

    topic: str
    partition: int
    offset: int


class OffsetTracker:
    """Records begin in order and settle in any order; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], deque[int]] = {}
        self._settled: dict[tuple[str, int], set[int]] = {}
        self._committable: dict[tuple[str, int], int] = {}  # changed since `take`

    def begin(self, at: TopicOffset) -> None:
        """A record was read."""
        with self._lock:
            self._open.setdefault(at[:2], deque()).append(at.offset)
            self._settled.setdefault(at[:2], set())

    def settle(self, at: TopicOffset) -> None:
        """A record's reply or dead letter was acknowledged; unknown records are ignored."""
        with self._lock:
            waiting = self._open.get(at[:2])
            if not waiting or at.offset < waiting[0]:
                return
            settled = self._settled[at[:2]]
            settled.add(at.offset)
            while waiting and waiting[0] in settled:
                first = waiting.popleft()
                settled.discard(first)
                self._committable[at[:2]] = first + 1

    def forget(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Partitions that another member owns now; what is not settled is read again there."""
        with self._lock:
            for topic, partition in partitions:
                self._open.pop((topic, partition), None)
                self._settled.pop((topic, partition), None)
                self._committable.pop((topic, partition), None)

    def take(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> next offset, for partitions that moved since the last call."""
        with self._lock:
            moved, self._committable = self._committable, {}
            return moved

    def unsettled(self) -> int:
        """Records that wait for their reply."""
        with self._lock:
            return sum(map(len, self._open.values())) - sum(map(len, self._settled.values()))
