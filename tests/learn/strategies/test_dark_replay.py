"""What a task said of a pair when it came is kept beside it, and asked for again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.learn.offline import OfflineLearner
from edgeseq_core.learn.strategies.note import MOST_ID, pack, unpack
from edgeseq_core.model.base import Base
from edgeseq_core.model.lessons import TopK
from edgeseq_core.replay.buffer import TaskSettings
from tests.learn.rig import Learner, numbered
from tests.learn.strategies.pupils import TASK, examples, pupil

K = 8  # symbols a token, by default


def test_a_note_is_read_as_it_was_said() -> None:
    said = TopK(torch.tensor([[3, MOST_ID], [0, 7]]), torch.tensor([[-0.5, -9.0], [-0.25, -2.0]]))
    note = pack(said)
    assert len(note) == 3 + 4 * 2 * 2
    found = unpack(note, 2)
    assert found is not None
    assert torch.equal(found.ids, said.ids)
    assert torch.equal(found.log_probabilities, said.log_probabilities)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_note_of_other_tokens_is_none(tokens: int) -> None:
    note = pack(TopK(torch.tensor([[3], [1]]), torch.zeros(2, 1)))
    assert unpack(note, tokens) is None
    assert unpack(note[:-1], 2) is None
    assert unpack(b"", 0) is None


def test_a_symbol_too_large_for_a_note_leaves_none() -> None:
    assert pack(TopK(torch.tensor([[MOST_ID + 1]]), torch.zeros(1, 1))) == b""


def distance(learner: TaskLearner, notes: dict[str, bytes]) -> float:
    """How far what is said of pairs now is from what was said then, in probability."""
    pairs = [e for e in examples(0, 32) if e.key in notes]
    reading = learner.study.read(
        learner.calibration, [e.source for e in pairs], [e.target for e in pairs], smoothing=0.0
    )
    total = 0.0
    for pair, now in zip(pairs, reading.said(64), strict=True):
        then = unpack(notes[pair.key], len(now.ids))
        assert then is not None
        for token, symbol in enumerate(then.ids[:, 0]):
            found = now.log_probabilities[token][now.ids[token] == symbol].exp().sum()
            total += abs(float(found - then.log_probabilities[token, 0].exp()))
    return total


def test_new_pairs_get_notes_and_replayed_ones_pull_to_them(base: Base) -> None:
    """However often they are replayed, what was said of them at first holds, if it weighs enough."""
    moved = []
    for keeps in (False, True):
        learner = pupil(base, objective="dark-replay", teacher_weight=50.0)
        new = [replace(e, part="bulk") for e in examples(24, 32)]
        notes = dict(learner.step(4, new, [True] * 8, examples(0, 8)).notes)
        assert notes.keys() == {e.key for e in new}
        replay = [replace(e, note=notes[e.key] if keeps else b"") for e in examples(24, 32)]
        for step in range(5, 15):
            assert learner.step(step, [], [], replay).notes == {}
        moved.append(distance(learner, notes))
    assert moved[1] < moved[0] / 2


def test_a_pair_without_a_note_is_replayed_plainly(base: Base) -> None:
    learner = pupil(base, objective="dark-replay")
    assert learner.strategy.objective.teaching(learner, examples(0, 8)) is None
    assert learner.step(4, [], [], examples(0, 8)).notes == {}


def test_the_loop_keeps_them_within_the_budget(base: Base) -> None:
    config = pupil(base, objective="dark-replay").config
    learner: OfflineLearner = Learner(base, config)
    each = 3 + 4 * K * len("even.")
    learner.buffer.set_task(TASK, TaskSettings(reservoir_bytes=40 * each))
    learner.ingest(TASK, numbered(0, 64))
    while learner.loop.run_once():
        pass
    replay = [n / 50 for n in range(50)]
    drawn = learner.buffer.draw(TASK, corrections=0, bulk=0, replay=replay).replay
    stats = learner.buffer.stats(TASK)
    assert len({pair.key for pair in drawn}) == stats.pairs["reservoir"] < 40
    assert stats.bytes["reservoir"] <= 40 * each
    assert all(pair.note for pair in drawn)
