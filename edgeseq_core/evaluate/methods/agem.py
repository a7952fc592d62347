"""A-GEM: a step may not raise the loss on the buffer, to first order.

Source: Chaudhry et al. 2019 (arXiv 1812.00420, equation 11): where the gradient g of the new pairs points
against the reference gradient r of revisited ones, ``g - (g.r / r.r) r`` is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.memories import Reservoir, row_bytes
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.whole_model import Baseline, Row, rows_of


class AveragedGem(Baseline):
    """Every step is on the new pairs, projected; the reference is drawn from the tasks before."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        budget = terms.task_bytes * len(terms.tasks)
        self._memory = Reservoir[Row](budget, row_bytes, terms.learning.seed)

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        new = rows_of(task, pairs)
        for _ in range(self.terms.steps):
            gradient = self.model.gradient(self.model.loss(new))
            if revisited := self._memory.draw(self.terms.learning.replay_per_step):
                reference = self.model.gradient(self.model.loss(revisited))
                gradient = projected(gradient, reference)
            self.model.step(task, gradient)
        self._memory.add(new)

    def buffer_bytes(self) -> int:
        return self._memory.bytes


def projected(
    gradient: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The gradient without its part against the reference.

    >>> projected([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 2.0])])[0].tolist()
    [1.0, 0.0]
    """
    pairs = list(zip(gradient, reference, strict=True))
    along = torch.stack([(g * r).sum() for g, r in pairs]).sum()
    if along >= 0:
        return list(gradient)
    share = along / torch.stack([r.square().sum() for r in reference]).sum()
    return [g - share * r for g, r in pairs]
