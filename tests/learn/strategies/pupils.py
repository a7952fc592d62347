"""Learners of one task that have taken a few steps, with a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.learn.studies import settled, study_on
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.settings import LearningSettings
from tests.learn.rig import SMALL, numbered

TASK = "numbers"


def examples(start: int, stop: int) -> list[Example]:
    """As they come out of the reservoir."""
    return [
        Example(f"k:{n}", "reservoir", source, target, "pairs", n, 0, 0.0, 0.0)
        for n, (source, target) in enumerate(numbered(start, stop), start)
    ]


def pupil(base: Base, *, steps: int = 3, **strategy: Any) -> TaskLearner:
    """A learner that has taken steps of eight pairs."""
    config = settled(base, LearningSettings(**SMALL.model_dump() | strategy))
    study = study_on(base, config, CachingEncoder(base, calibrated_layers=config.encoder_layers))
    learner = TaskLearner(base, TASK, config, study)
    take(learner, 0, steps)
    return learner


def take(
    learner: TaskLearner, first: int, last: int, replay: Sequence[Example] = ()
) -> TaskLearner:
    """Steps of eight new pairs each, and these revisited ones."""
    for at in range(first, last):
        new = examples(8 * at, 8 * at + 8)
        learner.step(at + 1, new, [True] * 8, replay)
    return learner
