"""Replay of the candidates that the task knows least."""

from __future__ import annotations

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.protocol import Candidates, Student
from edgeseq_core.learn.strategies.replay import largest, losses
from edgeseq_core.settings import LearningSettings


class LossReplay:
    """Of the pairs drawn, those of the largest loss a token.

    Source: the greedy form of prioritized replay (Schaul et al. 2016, arXiv 1511.05952, section 3.2).
    """

    def candidates(self, config: LearningSettings) -> int:
        return config.replay_candidates

    def choose(self, student: Student, drawn: Candidates) -> list[Example]:
        found = drawn.distinct
        if len(found) <= drawn.count:
            return found
        return largest(found, losses(student, student.calibration, found), drawn.count)
