"""Naive fine-tuning: steps on the new pairs, and nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.whole_model import Baseline, rows_of


class FineTuning(Baseline):
    """Every step of a batch is on its new pairs."""

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        rows = rows_of(task, pairs)
        for _ in range(self.terms.steps):
            self.model.train(task, rows)
