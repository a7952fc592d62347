"""DER++: replay that also holds the logits of the moment a pair came, and asks for them again.

Source: Buzzega et al. 2020 (arXiv 2004.07211, equation 6):
``loss(new) + alpha * MSE(logits, stored logits) + beta * loss(revisited)``, on two draws of the buffer.
Of each stored token the ``TOP`` largest logits are kept, for all of them would take 5 kB a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.memories import Reservoir, row_bytes
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.whole_model import Baseline, Row, rows_of

ALPHA, BETA = 0.3, 0.5  # the paper's for a sequence of image tasks; not tuned here
TOP = 8
LOGIT_BYTES = 4  # two for the symbol, two for the value


@dataclass(frozen=True)
class _Kept:
    """A pair, and the largest logits ``[T, TOP]`` of each token of its target (EOS included)."""

    row: Row
    symbols: Tensor
    values: Tensor

    def bytes(self) -> int:
        return row_bytes(self.row) + LOGIT_BYTES * self.symbols.numel()


class DarkExperienceReplay(Baseline):
    """Every step: new pairs (after the first step, revisited ones), and two draws of the buffer."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        budget = terms.task_bytes * len(terms.tasks)
        self._memory = Reservoir[_Kept](budget, _Kept.bytes, terms.learning.seed)

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        new, half = rows_of(task, pairs), self.terms.learning.replay_per_step // 2
        logits, wanted = self.model.logits(new)
        kept = [_keep(*one) for one in zip(new, logits.detach(), wanted, strict=True)]
        loss = self.model.cross_entropy(logits, wanted)
        self._step(task, loss, half)
        self._memory.add(kept)
        for _ in range(self.terms.steps - 1):
            self._step(task, torch.zeros(()), half)

    def _step(self, task: str, loss: Tensor, half: int) -> None:
        if (dark := self._memory.draw(half)) and (labels := self._memory.draw(half)):
            loss = loss + ALPHA * self._distance(dark)
            loss = loss + BETA * self.model.loss([one.row for one in labels])
        self.model.step(task, self.model.gradient(loss))

    def _distance(self, kept: Sequence[_Kept]) -> Tensor:
        """The mean squared distance to the stored logits."""
        logits, _ = self.model.logits([one.row for one in kept])
        squares = [
            (own[: len(one.symbols)].gather(1, one.symbols) - one.values).square().flatten()
            for own, one in zip(logits, kept, strict=True)
        ]
        return torch.cat(squares).mean()

    def buffer_bytes(self) -> int:
        return self._memory.bytes


def _keep(row: Row, logits: Tensor, wanted: Tensor) -> _Kept:
    values, symbols = logits[wanted != 0].topk(TOP)
    return _Kept(row, symbols, values)
