"""Replay of equally many pairs of each class, so that rare ones are not drowned.

A target has no class, but an ending: as in inflection, endings are what a task's rules differ by.
"""

from __future__ import annotations

from itertools import chain, zip_longest

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.protocol import Candidates, Student
from edgeseq_core.settings import LearningSettings

ENDING = 2  # characters


class BalancedReplay:
    """Takes from each class of the candidates in turn.

    Source: class-balanced memories (Chrysakis and Moens 2020, ICML, algorithm 1; GDumb: Prabhu et al. 2020),
    here of the draw, since the reservoir stays a uniform sample.
    """

    def candidates(self, config: LearningSettings) -> int:
        return config.replay_candidates

    def choose(self, _student: Student, drawn: Candidates) -> list[Example]:
        classes: dict[str, list[Example]] = {}
        for example in drawn.distinct:
            classes.setdefault(example.target[-ENDING:], []).append(example)
        turns = chain.from_iterable(zip_longest(*classes.values()))
        return [example for example in turns if example is not None][: drawn.count]
