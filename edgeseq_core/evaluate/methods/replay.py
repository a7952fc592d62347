"""Experience replay: new pairs with as many from a reservoir, in one joint step.

Source: Chaudhry et al. 2019 (arXiv 1902.10486, algorithm 1), insertion after the step.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.memories import Reservoir, row_bytes
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.whole_model import Baseline, Row, rows_of


class ExperienceReplay(Baseline):
    """A joint step, then the product's rehearsals: steps on revisited pairs alone."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        budget = terms.task_bytes * len(terms.tasks)
        self._memory = Reservoir[Row](budget, row_bytes, terms.learning.seed)
        self.revisited = terms.learning.replay_per_step  # pairs a step

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        new = rows_of(task, pairs)
        self.model.train(task, [*new, *self._memory.draw(self.revisited)])
        self._memory.add(new)
        for _ in range(self.terms.steps - 1):
            self.model.train(task, self._memory.draw(self.revisited))

    def buffer_bytes(self) -> int:
        return self._memory.bytes
