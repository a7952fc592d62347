"""Consistency with the better of two averages of the task's own past (CLS-ER)."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.distillation import heard
from edgeseq_core.learn.strategies.ema_pair import PLASTIC, STABLE
from edgeseq_core.learn.strategies.plain import Plain
from edgeseq_core.learn.strategies.protocol import Student
from edgeseq_core.model.lessons import Teaching


class Consistency(Plain):
    """Each replayed pair is taught by the average that finds its target likelier.

    Source: CLS-ER (Arani et al. 2022, arXiv 2201.12604, algorithm 1), with the divergence over the
    likeliest symbols in place of the squared distance of all logits.
    """

    def teaching(self, student: Student, replay: Sequence[Example]) -> Teaching | None:
        if not replay or not student.optimizer.count:
            return None
        said, loss = [], []
        for kind in (PLASTIC, STABLE):
            reading = heard(student, student.holding(student.averages[kind]), replay)
            said.append(reading.said(student.config.teacher_top))
            loss.append(reading.plain)
        stable = (loss[1] <= loss[0]).tolist()
        chosen = [pair[wins] for *pair, wins in zip(*said, stable, strict=True)]
        return Teaching(chosen, student.config.teacher_weight)
