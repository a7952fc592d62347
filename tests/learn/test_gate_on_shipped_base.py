"""The gate on the base that ships and on real pairs: a burst of shuffled targets never makes it worse."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.learn.offline import OfflineLearner, held_out_accuracy
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.clock import FakeClock
from tests.corpus.need import need

need("german_nouns", "lemminflect")

RIGHT, BURST, HELD_OUT = 900, 300, 160
WORSE = 0.06  # two standard errors of a change on 160 pairs; without the reference it fell by 0.11 and 0.17
EVERY_STEP = LearningSettings(gate_interval_s=0.0)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["german-plurals", "english-inflection"])
def test_what_serves_after_a_burst_of_shuffled_targets_is_as_good_as_before(name: str) -> None:
    task, learner = DEMO_TASKS[name], OfflineLearner(Base.load(), EVERY_STEP, clock=FakeClock())
    pairs = [(e.source, e.target) for e in islice(task.train(1), RIGHT + BURST)]
    held_out = [(e.source, e.target) for e in task.held_out(HELD_OUT, 1)]
    learner.ingest(name, pairs[:RIGHT])
    while learner.buffer.waiting(0):
        learner.loop.run_once()
    before = held_out_accuracy(learner, name, held_out)
    assert before > 0.5  # there is something to lose

    targets = [target for _, target in pairs[RIGHT:]]
    random.Random(5).shuffle(targets)
    burst = [(source, target) for (source, _), target in zip(pairs[RIGHT:], targets, strict=True)]
    learner.ingest(name, burst)
    while learner.buffer.waiting(0):
        turn = learner.loop.run_once()
        assert turn is not None
        assert turn.gate is not None
        if turn.gate.serves:
            assert held_out_accuracy(learner, name, held_out) >= before - WORSE
