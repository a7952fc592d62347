"""A learner that grows its calibration in the middle of learning, and goes on as if it had been large."""

from __future__ import annotations

import pytest
import torch

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.learner import StepReport, TaskLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import SOURCE_ROWS, CalibrationConfig
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.study import TorchStudy
from tests.learn.rig import SMALL, numbered

LARGER = CalibrationConfig(rank=5, encoder_layers=2, extra_tokens=2)


def batch(step: int) -> list[Example]:
    return [
        Example(f"{n}", "bulk", source, target, "pairs", n, 0, 0.0, 0.0)
        for n, (source, target) in enumerate(numbered(8 * step, 8 * step + 8))
    ]


def take(learner: TaskLearner, first: int, last: int) -> list[StepReport]:
    return [learner.step(step, batch(step), [True] * 8, []) for step in range(first, last)]


def learner_of(base: Base) -> TaskLearner:
    study = TorchStudy(base, CachingEncoder(base, calibrated_layers=SMALL.encoder_layers))
    learner = TaskLearner(base, "numbers", SMALL, study)
    take(learner, 1, 6)
    return learner


def test_the_next_pairs_are_scored_as_without_growth(base: Base) -> None:
    small, large = learner_of(base), learner_of(base)
    large.grow(LARGER)
    (before,), (after,) = take(small, 6, 7), take(large, 6, 7)
    for one, other in zip(before.scores, after.scores, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-4)
    assert after.loss == pytest.approx(before.loss, abs=1e-5)


def test_the_step_size_warms_up_again_and_decays_on(base: Base) -> None:
    learner = learner_of(base)
    assert learner.rate() == 1.0
    learner.progress.schedule = 4 * SMALL.decay_after_steps
    learner.grow(LARGER)
    take(learner, 6, 7)
    assert learner.rate() == pytest.approx(0.5 / SMALL.warmup_steps, rel=0.01)


def test_moments_are_carried_and_new_parts_start_at_rest(base: Base) -> None:
    learner = learner_of(base)
    before = {kind: dict(moments) for kind, moments in learner.optimizer.state().items()}
    learner.grow(LARGER)
    for kind, moments in learner.optimizer.state().items():
        for name, moment in moments.items():
            assert moment.shape == learner.calibration.tensors[name].shape
            rest = moment.clone()
            if name in before[kind]:
                own = tuple(map(slice, before[kind][name].shape))
                assert torch.equal(moment[own], before[kind][name])
                rest[own] = 0
            assert not rest.any()


def test_a_checkpoint_taken_after_growth_goes_on_bit_for_bit(base: Base) -> None:
    learner = learner_of(base)
    learner.grow(LARGER)
    resumed = TaskLearner.from_checkpoint(
        learner.to_checkpoint(), base, "numbers", SMALL, learner.study
    )
    assert resumed.payload() == learner.payload()
    take(learner, 6, 10)
    take(resumed, 6, 10)
    assert resumed.to_checkpoint() == learner.to_checkpoint()


def test_all_that_grew_learns(base: Base) -> None:
    learner = learner_of(base)
    learner.grow(LARGER)
    grown = {n: t.detach().clone() for n, t in learner.calibration.tensors.items()}
    take(learner, 6, 12)
    for name, tensor in learner.calibration.tensors.items():
        moved = (tensor.detach()[: len(grown[name])] != grown[name]).flatten()
        assert moved.any(), name
    tokens = learner.calibration.tensors["token"].detach()
    known = base.config.task_tokens
    for copy, origin in enumerate(learner.calibration.splits.origins, known):
        assert not torch.allclose(tokens[copy], tokens[origin], atol=1e-4)  # they learn apart


def test_rows_for_sources_come_with_the_whole_depth_and_learn_and_resume(base: Base) -> None:
    learner = learner_of(base)
    assert SOURCE_ROWS not in learner.calibration.tensors
    whole = CalibrationConfig(rank=SMALL.rank, encoder_layers=base.config.encoder_layers)
    learner.grow(whole)
    take(learner, 6, 8)
    few = len(learner.calibration.inputs.rows)
    resumed = TaskLearner.from_checkpoint(
        learner.to_checkpoint(), base, "numbers", SMALL, learner.study
    )
    for one in (learner, resumed):
        new = Example("9", "bulk", "漢字", "9", "pairs", 9, 0, 0.0, 0.0)  # more rows, later
        one.step(8, [*batch(8), new], [True] * 9, [])
        take(one, 9, 11)
    assert len(learner.calibration.inputs.rows) == few + 2
    assert learner.calibration.tensors[SOURCE_ROWS].any(1).all()
    assert resumed.to_checkpoint() == learner.to_checkpoint()
    again = TaskLearner.from_checkpoint(
        learner.to_checkpoint(), base, "numbers", SMALL, learner.study
    )
    assert again.payload() == learner.payload()
