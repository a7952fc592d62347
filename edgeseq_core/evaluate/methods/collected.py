"""Methods that learn from what they have collected when the stream has ended: GDumb and joint training.

They take as many steps as the others took over the stream, with as many pairs in each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Protocol

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.memories import GreedyBalanced, row_bytes
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.whole_model import Baseline, Row, rows_of


class _Memory(Protocol):
    bytes: int

    def add(self, rows: Sequence[Row]) -> None: ...

    def all(self) -> list[Row]: ...


class _Collected(Baseline):
    """Counts the steps it may take, and takes them from the base at the end, on shuffled pairs."""

    online: ClassVar[bool] = False

    def __init__(self, terms: Terms, memory: _Memory) -> None:
        super().__init__(terms)
        self._memory = memory
        self._joint = self._rehearsed = 0  # steps: with new and revisited pairs, with half as many

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        self._memory.add(rows_of(task, pairs))
        self._joint += 1
        self._rehearsed += self.terms.steps - 1

    def end(self, *, last: bool) -> None:
        if not last:
            return
        rng, rows = random.Random(self.terms.learning.seed), self._memory.all()
        revisited = self.terms.learning.replay_per_step
        sizes = [revisited + self.terms.batch] * self._joint + [revisited] * self._rehearsed
        rng.shuffle(sizes)
        waiting: list[Row] = []
        for size in sizes:
            if len(waiting) < size:
                waiting += rng.sample(rows, len(rows))
            now, waiting = waiting[:size], waiting[size:]
            self.model.train("all", now)

    def buffer_bytes(self) -> int:
        return self._memory.bytes


class GDumb(_Collected):
    """A fresh model on a balanced buffer.

    Source: Prabhu, Torr, Dokania 2020 (ECCV, algorithms 1 and 2); "fresh" is the base here, as for all.
    """

    def __init__(self, terms: Terms) -> None:
        budget = terms.task_bytes * len(terms.tasks)
        super().__init__(terms, GreedyBalanced(budget, terms.learning.seed))


class JointTraining(_Collected):
    """All pairs of all tasks at once: what a stream keeps everyone else from; its bytes have no bound."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms, _Everything())


class _Everything:
    """Every pair that came."""

    def __init__(self) -> None:
        self.bytes = 0
        self._rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        self.bytes += sum(map(row_bytes, rows))

    def all(self) -> list[Row]:
        return self._rows
