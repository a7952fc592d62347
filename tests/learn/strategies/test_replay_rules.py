"""Replay rules take of their candidates those that they say, and leave nothing behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.learn.strategies.replay import losses
from edgeseq_core.model.base import Base
from tests.learn.strategies.pupils import examples, pupil

COUNT = 8  # of a step in `SMALL`


@pytest.mark.parametrize("replay", ["balanced", "loss", "mir"])
def test_a_rule_looks_at_more_and_takes_each_once(base: Base, replay: str) -> None:
    learner = pupil(base, replay=replay)
    assert len(learner.replay_ranks()) == 3 * COUNT
    drawn = [*examples(0, 12), *examples(0, 12)]
    before = learner.to_checkpoint()
    taken = learner.replayed(drawn, examples(50, 58))
    assert len({e.key for e in taken}) == len(taken) == COUNT
    assert learner.to_checkpoint() == before
    assert len(learner.replayed(drawn[:5])) == 5
    assert learner.replayed([]) == []


def test_the_reservoir_s_own_draw_is_taken_as_it_is(base: Base) -> None:
    learner = pupil(base)
    assert len(learner.replay_ranks()) == COUNT
    drawn = [*examples(0, 4), *examples(0, 4)]
    assert learner.replayed(drawn) == drawn


def test_the_largest_losses_are_replayed(base: Base) -> None:
    learner = pupil(base, replay="loss")
    drawn = examples(0, 24)
    worst = losses(learner, learner.calibration, drawn).topk(COUNT).indices.tolist()
    assert learner.replayed(drawn) == [drawn[at] for at in worst]


def test_what_a_step_would_hurt_most_is_replayed(base: Base) -> None:
    def learner() -> TaskLearner:
        return pupil(base, replay="mir", learning_rate=0.2)

    one, other, drawn = learner(), learner(), examples(0, 24)
    against = [replace(e, target="odd" if e.target == "even" else "even") for e in examples(0, 8)]
    taken = one.replayed(drawn, against)
    before = losses(other, other.calibration, drawn)
    other.step(4, against, [True] * 8, [])
    raised = losses(other, other.calibration, drawn) - before
    assert raised.max() > 0.1
    hurt = set(raised.topk(COUNT).indices.tolist())
    assert len(hurt & {e.offset for e in taken}) >= COUNT - 1
    assert one.replayed(drawn) == drawn[:COUNT]  # a rehearsal has nothing new


def test_every_ending_has_its_turn(base: Base) -> None:
    learner = pupil(base, replay="balanced")
    drawn = [replace(e, target="rare") if n == 5 else e for n, e in enumerate(examples(0, 24))]
    common = [e for e in drawn if e.target == "even"]
    taken = learner.replayed([*common, *(e for e in drawn if e.target != "even")])
    assert Counter(e.target for e in taken) == {"even": 4, "odd": 3, "rare": 1}


def test_a_loss_that_is_no_number_is_not_preferred(base: Base) -> None:
    learner = pupil(base, replay="loss")
    learner.calibration.tensors["vector"] = torch.full_like(
        learner.calibration.tensors["vector"], torch.nan
    )
    drawn = examples(0, 24)
    assert learner.replayed(drawn) == drawn[:COUNT]
