"""Two moving averages, a plastic and a stable one; the stable one is offered (CLS-ER)."""

from __future__ import annotations

import random

from edgeseq_core.learn.strategies.ema import AVERAGE, MovingAverage, lerp
from edgeseq_core.learn.strategies.protocol import Student

PLASTIC, STABLE = AVERAGE, "stable"
PLASTIC_UPDATES, STABLE_UPDATES = 0.9, 0.7  # probability of an update, a step: the paper's


class EmaPair(MovingAverage):
    """Each is updated in a random share of the steps, the stable one in fewer and by less.

    Source: CLS-ER (Arani et al. 2022, arXiv 2201.12604, algorithm 1).  Seed and step decide.
    """

    kinds = (PLASTIC, STABLE)
    offered = STABLE

    def update(self, student: Student) -> None:
        config, count = student.config, student.optimizer.count
        draw = random.Random(f"{config.seed}:{student.task}:{count}:averages")
        if draw.random() < PLASTIC_UPDATES:
            lerp(student, PLASTIC, config.averaging)
        if draw.random() < STABLE_UPDATES:
            lerp(student, STABLE, config.stable_averaging)
