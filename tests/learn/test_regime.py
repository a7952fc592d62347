"""After a drift, pairs from before it are left out, then doubted; restarts and rebuilds change no byte."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from edgeseq_core.learn import regime
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.learner import OVERDRAW, TaskLearner
from edgeseq_core.learn.loop import Turn
from edgeseq_core.learn.offline import learn_pairs
from edgeseq_core.learn.progress import Progress
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.study import TorchStudy
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


def pin(learner: Learner, *, on: bool) -> None:
    """Keep the champion that serves, or let it follow."""
    line = {"kind": "pin", "action": "pin" if on else "unpin", "snapshot_id": None}
    learner.registry.pin(TASK, on, now_ms=1, journal=json.dumps(line))


def roll_back(learner: Learner, to: str) -> None:
    line = json.dumps({"kind": "rollback", "action": "rollback", "snapshot_id": to})
    champion = learner.registry.status(TASK).champion
    learner.registry.rollback(TASK, to, expected_champion=champion, now_ms=1, journal=line)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_rollback_across_a_drift_forks_there_and_finds_the_drift_again(
    base: Base, restarts: bool
) -> None:
    learner, records = Learner(base, QUICK), dict[str, bytes]()

    def teach(start: int, stop: int, answer: str) -> list[Turn]:
        turns = list[Turn]()
        for at in range(start, stop, 8):
            learner.ingest(TASK, answered(at, at + 8, answer))
            records.update((p.key, p.record) for p in learner.buffer.read(TASK, "bulk"))
            while learner.buffer.waiting(0):  # the first turn after a rollback finds itself fenced
                turn = learner.loop.run_once()
                turns += [turn] if turn else []
        return turns

    early = teach(0, 160, "yes")[-1].learner
    losses, statistics = list(early.drift.values), early.statistics
    back = learner.registry.status(TASK).champion
    assert back is not None
    for on in (True, False):  # chosen by a person, so its bytes stay
        pin(learner, on=on)
    ahead = teach(160, 320, "no")[-1].learner
    assert (ahead.progress.drifts, set(learner.answers(TASK, ["question 901"]))) == (1, {"no"})

    roll_back(learner, back)
    manifest, state = learner.registry.record(TASK, back).manifest, learner.buffer.state(TASK)
    assert state.checkpoint is not None
    assert hashlib.sha256(state.checkpoint).hexdigest() == manifest.checkpoint_digest
    assert set(learner.answers(TASK, ["question 901"])) == {"yes"}
    study = TorchStudy(base, CachingEncoder(base, calibrated_layers=QUICK.encoder_layers))
    forked = TaskLearner.from_checkpoint(state.checkpoint, base, TASK, QUICK, study)
    assert (forked.progress.drifts, forked.progress.drifted, forked.adapts) == (0, {}, False)
    assert list(forked.changed_since) == ["source_length"]  # of "question 99" and "question 100"
    assert (forked.progress.scored, forked.drift.values) == (160, losses)
    assert forked.statistics == statistics
    if restarts:
        learner.restart()

    pinned = teach(320, 520, "no")
    assert learner.registry.status(TASK).champion == back
    assert not any(turn.gate.serves for turn in pinned if turn.gate)
    begun = pinned[-1].learner.progress
    assert begun.drifts == 1
    assert abs(begun.drifted["pairs"] - 320) <= 8

    pin(learner, on=False)
    assert any(turn.gate.serves for turn in teach(520, 552, "no") if turn.gate)
    assert set(learner.answers(TASK, ["question 901"])) == {"no"}
    store, registry = rebuild(TASK, learner.buffer.journal(TASK), records, base, QUICK)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)


def test_adapting_is_on_by_default() -> None:
    default = LearningSettings()
    assert default.drift_rehearsals > default.rehearsals_per_step
    assert default.drift_held_out_share > default.held_out_share
