"""What objectives add: they hold a task to its champion or its own past, unless that is to be unlearnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.settings import ObjectiveChoice
from tests.learn.strategies.pupils import examples, pupil, take

FOLLOW: list[ObjectiveChoice] = ["anchor", "distillation"]
STRONG: dict[str, Any] = {"anchor_strength": 5.0, "teacher_weight": 5.0}


def following(base: Base, objective: str, **settings: Any) -> TaskLearner:
    """A learner whose champion is what it was after three steps."""
    learner = pupil(base, objective=objective, **STRONG | settings)
    learner.follow("numbers-3-abc", learner.payload())
    return learner


def said(learner: TaskLearner, calibration: Calibration) -> torch.Tensor:
    pairs = examples(0, 16)
    with torch.no_grad():
        reading = learner.study.read(
            calibration, [e.source for e in pairs], [e.target for e in pairs], smoothing=0.0
        )
    return reading.plain.clone()


def test_an_anchor_keeps_the_numbers_near_the_champion_s(base: Base) -> None:
    away = {}
    for objective in ("plain", "anchor"):
        learner = following(base, objective)
        champion = Calibration.from_payload(
            pupil(base).payload(), base.model, base.vocabulary, base.digest
        )
        take(learner, 3, 9)
        away[objective] = sum(
            float((learner.calibration.tensors[name].detach() - there).square().sum())
            for name, there in champion.tensors.items()
            if there.shape == learner.calibration.tensors[name].shape
        )
    assert away["anchor"] < away["plain"] / 2


def test_distillation_keeps_what_the_champion_says(base: Base) -> None:
    moved = {}
    for objective in ("plain", "distillation"):
        learner = following(base, objective, teacher_weight=50.0)
        before = said(learner, pupil(base).averaged())
        wrong = [
            replace(e, target="odd" if e.target == "even" else "even") for e in examples(0, 16)
        ]
        for step in range(4, 8):
            learner.step(step, [], [], wrong)
        moved[objective] = float((said(learner, learner.calibration) - before).abs().mean())
    assert moved["distillation"] < moved["plain"] / 2


@pytest.mark.parametrize("objective", FOLLOW)
def test_nobody_is_followed_while_a_task_adapts_or_learns_anew(
    base: Base, objective: ObjectiveChoice
) -> None:
    follows, plain = following(base, objective), pupil(base)
    for learner in (follows, plain):
        learner.progress.relearning = 1
        take(learner, 3, 4, examples(0, 8))
        learner.progress.drifted, learner.progress.since_drift = {"pairs": 32}, 0
        assert learner.adapts
        take(learner, 4, 5, examples(0, 8))
    for name, tensor in plain.calibration.tensors.items():
        assert torch.equal(follows.calibration.tensors[name], tensor)
    follows.progress.drifted, plain.progress.drifted = {}, {}
    for learner in (follows, plain):
        take(learner, 5, 6, examples(0, 8))
    assert any(
        not torch.equal(follows.calibration.tensors[name], tensor)
        for name, tensor in plain.calibration.tensors.items()
    )


def test_a_champion_with_rows_for_new_symbols_says_what_it_said(base: Base) -> None:
    learner = following(base, "distillation")
    champion = learner.champion
    assert champion is not None
    before = said(learner, champion.calibration)
    learner.calibration.admit(["漢字 and more"])
    wider = champion.beside(learner.calibration)
    assert wider is not None
    assert wider.table.symbols == learner.calibration.table.symbols == ("漢", "字")
    assert len(wider.rows) == len(learner.calibration.rows) > len(champion.calibration.rows)
    assert (said(learner, wider) - before).abs().max() < 0.1  # by the mass of new symbols alone


def test_a_champion_of_another_line_is_not_followed(base: Base) -> None:
    learner = following(base, "distillation")
    other = pupil(base, steps=0)
    other.calibration.admit(["zebra"])
    assert learner.champion is not None
    assert learner.champion.beside(other.calibration) is None


def test_each_pair_is_taught_by_the_average_that_knows_it_better(base: Base) -> None:
    learner = pupil(base, objective="consistency", average="ema-pair")
    replay = examples(0, 8)
    plastic, stable = learner.averages["average"], learner.averages["stable"]
    lost = {name: torch.zeros_like(t) for name, t in stable.items()}
    found = []
    for pair in ({"average": plastic, "stable": lost}, {"average": lost, "stable": plastic}):
        learner.averages = pair
        teaching = learner.strategy.objective.teaching(learner, replay)
        assert teaching is not None
        found.append([one.log_probabilities for one in teaching.said if one])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
