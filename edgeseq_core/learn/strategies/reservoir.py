"""Replay of what is drawn: pairs of the reservoir at random, the default."""

from __future__ import annotations

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.protocol import Candidates, Student
from edgeseq_core.settings import LearningSettings


class ReservoirReplay:
    """A uniform sample of a uniform sample (Chaudhry et al. 2019, arXiv 1902.10486)."""

    def candidates(self, _config: LearningSettings) -> int:
        return 1

    def choose(self, _student: Student, drawn: Candidates) -> list[Example]:
        return list(drawn.pairs[: drawn.count])
