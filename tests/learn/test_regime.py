"""After a drift, pairs from before it are left out, then doubted; restarts and rebuilds change no byte."""

from __future__ import annotations

import pytest
import torch

from edgeseq_core.learn import regime
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.learner import OVERDRAW
from edgeseq_core.learn.offline import learn_pairs
from edgeseq_core.learn.progress import Progress
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings
from tests.learn.rig import SMALL, Learner, Pairs

TASK = "answers"
QUICK = SMALL.model_copy(
    update={
        "learning_rate": 4e-2,
        "warmup_steps": 1,
        "drift_adapt_pairs": 64,
        "drift_rehearsals": 3,
    }
)


def answered(start: int, stop: int, answer: str) -> Pairs:
    return [(f"question {n}", answer) for n in range(start, stop)]


FLIP = answered(0, 160, "yes") + answered(160, 360, "no")


def example(offset: int, topic: str = "pairs") -> Example:
    return Example(f"log:p:{offset}", "reservoir", "a", "b", topic, offset, 0, 0.5, 0.5)


def scored(progress: Progress, *offsets: int, topic: str = "pairs") -> None:
    for offset in offsets:
        regime.note(progress, example(offset, topic))


def test_a_regime_begins_where_the_loss_rose_in_every_topic() -> None:
    progress = Progress(positions={"feedback": "log|7", "other": "log|3"}, schedule=50)
    scored(progress, 5, 6, topic="feedback")
    scored(progress, 10, 20, 30, 40)
    assert regime.begin(progress, 2)
    assert progress.drifted == {"feedback": 7, "other": 3, "pairs": 30}
    assert (progress.drifts, progress.since_drift, progress.schedule) == (1, 2, 0)
    assert regime.is_before(progress, example(20))
    assert not regime.is_before(progress, example(30))


def test_a_rise_that_is_shown_again_is_one_drift() -> None:
    progress = Progress()
    scored(progress, *range(100))
    assert regime.begin(progress, 10)
    scored(progress, *range(100, 108))
    assert not regime.begin(progress, 18)
    assert (progress.drifts, progress.drifted) == (1, {"pairs": 90})
    scored(progress, *range(108, 208))
    assert regime.begin(progress, 10)
    assert progress.drifts == 2


def test_pairs_from_before_count_as_far_as_they_are_still_true() -> None:
    losses = torch.tensor([0.5, 0.5, 0.5, 1.0, 5.0])
    before = torch.tensor([False, False, True, True, True])
    weights = regime.trust(Progress(), losses, before)
    assert weights.tolist() == pytest.approx([1.0, 1.0, 1.0, 1 / 16, 1e-4])
    assert regime.trust(Progress(), losses[2:], before[2:]).tolist() == [0.0, 0.0, 0.0]
    assert regime.trust(Progress(), losses, torch.zeros(5, dtype=torch.bool)).tolist() == [1.0] * 5


def test_a_task_adapts_for_a_while_on_pairs_since_the_drift_alone(base: Base) -> None:
    learner, adapted, ended = Learner(base, QUICK), 0, False
    for progress in learn_pairs(learner, TASK, FLIP, chunk=8):
        task = progress.turn.learner
        if not task.progress.drifts:
            assert not task.adapts
            continue
        ended = not task.adapts
        if task.adapts:
            adapted += 1
            assert task.rehearsals == QUICK.drift_rehearsals
            assert task.rate() == QUICK.drift_rate
            assert len(task.replay_ranks()) == OVERDRAW * QUICK.replay_per_step
            begins = task.progress.drifted["pairs"]
            assert task.replayed([example(begins - 1), example(begins)]) == [example(begins)]
    assert adapted
    assert ended
    assert task.progress.drifts == 1
    assert abs(task.progress.drifted["pairs"] - 160) <= 8
    assert set(learner.answers(TASK, [f"question {n}" for n in range(900, 910)])) == {"no"}


@pytest.mark.parametrize("turns", [1, 3])
def test_restarts_across_a_drift_change_no_byte(base: Base, turns: int) -> None:
    runs = []
    for at_once in (10_000, turns):
        learner = Learner(base, QUICK)
        learner.ingest(TASK, FLIP)
        while learner.learn(turns=at_once):
            learner.restart()
        runs.append(learner)
    assert runs[0].checkpoints == runs[1].checkpoints
    assert runs[0].buffer.journal(TASK) == runs[1].buffer.journal(TASK)


def test_a_rebuild_across_a_drift_gives_equal_bytes(base: Base) -> None:
    learner, records = Learner(base, QUICK), dict[str, bytes]()
    for at in range(0, len(FLIP), 8):
        learner.ingest(TASK, FLIP[at : at + 8])
        records |= {pair.key: pair.record for pair in learner.buffer.read(TASK, "bulk")}
        while learner.loop.run_once() is not None:
            pass
    store, registry = rebuild(TASK, learner.buffer.journal(TASK), records, base, QUICK)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK).champion == learner.registry.status(TASK).champion


def test_adapting_is_on_by_default() -> None:
    default = LearningSettings()
    assert default.drift_rehearsals > default.rehearsals_per_step
    assert default.drift_held_out_share > default.held_out_share
