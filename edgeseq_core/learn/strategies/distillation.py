"""Distillation from the champion on what is replayed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.plain import Plain
from edgeseq_core.learn.strategies.protocol import Student
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.lessons import Teaching
from edgeseq_core.model.study import Reading


class Distillation(Plain):
    """Adds ``weight * KL(champion || student)``, over the likeliest symbols of each token and the rest.

    Source: learning without forgetting (Li and Hoiem 2016, arXiv 1606.09282) on replayed pairs, as
    iCaRL has it (Rebuffi et al. 2017, arXiv 1611.07725, algorithm 3), at temperature 1.  While a task adapts
    to a drift or learns anew, what the champion says is what is to be unlearnt.
    """

    follows = True

    def teaching(self, student: Student, replay: Sequence[Example]) -> Teaching | None:
        config, champion = student.config, student.champion
        if not replay or champion is None or student.adapts or student.progress.relearning:
            return None
        if (teacher := champion.beside(student.calibration)) is None:
            return None
        return Teaching(
            heard(student, teacher, replay).said(config.teacher_top), config.teacher_weight
        )


@torch.no_grad()
def heard(student: Student, teacher: Calibration, examples: Sequence[Example]) -> Reading:
    """How a teacher reads pairs."""
    sources, targets = [e.source for e in examples], [e.target for e in examples]
    return student.study.read(teacher, sources, targets, smoothing=0.0)
