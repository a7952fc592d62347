"""Experience replay of the pairs that need it most: of more candidates than a step takes, the worst ones.

* by loss: those that the model knows least (the greedy form of prioritized replay, Schaul et al. 2016,
  arXiv 1511.05952, section 3.2);
* by interference: those that a step on the new pairs would hurt most (Aljundi et al. 2019, arXiv 1908.04742,
  MIR, algorithm 2).  The virtual step is the optimizer's own, taken back afterwards.

Rehearsals have no new pairs that could interfere: they take what any replay takes, at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.replay import ExperienceReplay
from edgeseq_core.evaluate.methods.whole_model import Row, rows_of

CANDIDATES = 3  # for each pair that a step replays; MIR's ablations find more to matter little


class LossReplay(ExperienceReplay):
    """Replays the candidates of the largest loss, in rehearsals as well."""

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        new = rows_of(task, pairs)
        self.model.train(task, [*new, *self._hardest()])
        self._memory.add(new)
        for _ in range(self.terms.steps - 1):
            self.model.train(task, self._hardest())

    def _hardest(self) -> list[Row]:
        rows = self._candidates()
        return self._largest(rows, self.model.losses(rows) if rows else torch.empty(0))

    def _candidates(self) -> list[Row]:
        return list(dict.fromkeys(self._memory.draw(CANDIDATES * self.revisited)))

    def _largest(self, rows: Sequence[Row], values: Tensor) -> list[Row]:
        return [rows[at] for at in values.topk(min(self.revisited, len(rows))).indices.tolist()]


class InterferedReplay(LossReplay):
    """Replays the candidates whose loss a step on the new pairs alone would raise most."""

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        new = rows_of(task, pairs)
        self.model.train(task, [*new, *self._interfered(task, new)])
        self._memory.add(new)
        for _ in range(self.terms.steps - 1):
            self.model.train(task, self._memory.draw(self.revisited))

    def _interfered(self, task: str, new: Sequence[Row]) -> list[Row]:
        if not (rows := self._candidates()):
            return []
        before = self.model.losses(rows)
        with self.model.virtual_step(task, self.model.gradient(self.model.loss(new))):
            after = self.model.losses(rows)
        return self._largest(rows, after - before)
