"""Buffers under a byte budget: a uniform sample of all that came, or one that is balanced over tasks."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Generic, TypeVar

from edgeseq_core.evaluate.methods.whole_model import Row

T = TypeVar("T")
LENGTHS_BYTES = 3  # of a stored pair: one each for source, target and task


def row_bytes(row: Row) -> int:
    """What a pair takes at the least: UTF-8 and three lengths.

    >>> row_bytes(Row("dates", "5 May", "é"))
    10
    """
    return len(row.source.encode()) + len(row.target.encode()) + LENGTHS_BYTES


class Reservoir(Generic[T]):
    """A uniform sample: each item draws a priority, and the smallest stay (as in `replay.buffer`).

    Source: Vitter 1985 for a fixed count; by priorities, it holds under a budget in bytes as well.
    """

    def __init__(self, budget_bytes: int, size_of: Callable[[T], int], seed: int) -> None:
        self.bytes = 0
        self._budget, self._size_of = budget_bytes, size_of
        self._rng = random.Random(seed)
        self._heap: list[tuple[float, int, T]] = []  # largest priority first
        self._count = 0

    def add(self, items: Iterable[T]) -> None:
        """Take the next items of the stream."""
        for item in items:
            self._count += 1
            heappush(self._heap, (-self._rng.random(), self._count, item))
            self.bytes += self._size_of(item)
            while self.bytes > self._budget:
                self.bytes -= self._size_of(heappop(self._heap)[2])

    def draw(self, count: int) -> list[T]:
        """Items at random, with repetition; none while it is empty."""
        if not self._heap:
            return []
        return [entry[2] for entry in self._rng.choices(self._heap, k=count)]

    def all(self) -> list[T]:
        """Every item it holds."""
        return [entry[2] for entry in self._heap]


class GreedyBalanced:
    """As many pairs of each task as of any other, as far as there are (GDumb, algorithm 1).

    Source: Prabhu, Torr, Dokania 2020 (ECCV): while full, a new pair replaces one of the largest class.
    """

    def __init__(self, budget_bytes: int, seed: int) -> None:
        self.bytes = 0
        self._budget, self._rng = budget_bytes, random.Random(seed)
        self._rows: dict[str, list[Row]] = defaultdict(list)

    def add(self, rows: Iterable[Row]) -> None:
        """Take the next pairs of the stream."""
        for row in rows:
            mine = self._rows[row.task]
            largest = max(map(len, self._rows.values()))
            if self.bytes + row_bytes(row) > self._budget and len(mine) >= largest:
                continue
            mine.append(row)
            self.bytes += row_bytes(row)
            while self.bytes > self._budget:
                crowd = max(self._rows.values(), key=len)
                gone = crowd.pop(self._rng.randrange(len(crowd)))
                self.bytes -= row_bytes(gone)

    def all(self) -> list[Row]:
        """Every pair it holds."""
        return [row for rows in self._rows.values() for row in rows]
