"""Online EWC: numbers that mattered to the tasks before are held where they were.

Source: Schwarz et al. 2018 (arXiv 1805.06370, section 3.2, equation 9): the loss gets
``lambda/2 * sum_i F_i (theta_i - theta*_i)^2``, with ``F <- gamma F + F_task`` at a task's end.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.whole_model import Baseline, Row, rows_of

STRENGTH = 1_000.0  # lambda
GAMMA = 1.0
FISHER_PAIRS = 128  # of the task that ends; they are forgotten then


class OnlineEwc(Baseline):
    """Steps on the new pairs, with a pull towards the weights at the last task's end."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._rng = random.Random(terms.learning.seed)
        self._fisher: list[Tensor] = []
        self._anchor: list[Tensor] = []
        self._sample: list[Row] = []
        self._seen = 0

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        rows = rows_of(task, pairs)
        for _ in range(self.terms.steps):
            gradient = self.model.gradient(self.model.loss(rows))
            if self._anchor:
                parts = zip(
                    gradient, self._fisher, self.model.parameters, self._anchor, strict=True
                )
                gradient = [g + STRENGTH * f * (p.detach() - a) for g, f, p, a in parts]
            self.model.step(task, gradient)
        for row in rows:  # a uniform sample of the task (Vitter 1985, algorithm R)
            self._seen += 1
            if len(self._sample) < FISHER_PAIRS:
                self._sample.append(row)
            elif (at := self._rng.randrange(self._seen)) < FISHER_PAIRS:
                self._sample[at] = row

    def end(self, *, last: bool) -> None:
        """Measure the diagonal of the empirical Fisher matrix, pair by pair, if a task follows."""
        if last:
            return
        fisher = [torch.zeros_like(p) for p in self.model.parameters]
        for row in self._sample:
            gradient = self.model.gradient(self.model.loss([row]))
            for total, one in zip(fisher, gradient, strict=True):
                total.add_(one.square(), alpha=1 / len(self._sample))
        if self._fisher:
            fisher = [GAMMA * old + new for old, new in zip(self._fisher, fisher, strict=True)]
        self._fisher = fisher
        self._anchor = [copy.deepcopy(p.detach()) for p in self.model.parameters]
        self._sample, self._seen = [], 0

    def buffer_bytes(self) -> int:
        """The anchor and the Fisher matrix: two more fp32 copies of the model."""
        return sum(4 * t.numel() for t in (*self._fisher, *self._anchor))
