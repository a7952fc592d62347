"""Replay of the candidates that the new pairs would hurt most."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.optimizer import CalibrationOptimizer
from edgeseq_core.learn.strategies.protocol import Candidates, Student
from edgeseq_core.learn.strategies.replay import largest, losses
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.settings import LearningSettings


class InterferedReplay:
    """Of the pairs drawn, those of the largest ``l(after) - l(before)`` of a virtual step on the new pairs.

    Source: MIR (Aljundi et al. 2019, arXiv 1908.04742, section 3.1).  The step is the optimizer's own, taken
    by a copy.  A rehearsal has no new pairs: it replays what was drawn first.
    """

    def candidates(self, config: LearningSettings) -> int:
        return config.replay_candidates

    def choose(self, student: Student, drawn: Candidates) -> list[Example]:
        found = drawn.distinct
        if len(found) <= drawn.count or not drawn.new:
            return found[: drawn.count]
        after = losses(student, self._stepped(student, drawn.new), found)
        return largest(found, after - losses(student, student.calibration, found), drawn.count)

    def _stepped(self, student: Student, new: Sequence[Example]) -> Calibration:
        config, own = student.config, student.calibration.tensors
        copy = student.holding({name: t.detach().clone() for name, t in own.items()})
        optimizer = CalibrationOptimizer(
            learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        moments = {
            kind: {name: moment.clone() for name, moment in of_kind.items()}
            for kind, of_kind in student.optimizer.state().items()
        }
        optimizer.load(moments, student.optimizer.count)
        optimizer.leaves(copy.tensors)
        sources, targets = [e.source for e in new], [e.target for e in new]
        reading = student.study.read(copy, sources, targets, smoothing=config.label_smoothing)
        reading.gradients(torch.ones(len(new)) / reading.tokens.sum())
        torch.nn.utils.clip_grad_norm_(list(copy.tensors.values()), config.norm_cap)
        optimizer.step(student.rate())
        return copy
