"""Guards: non-finite steps change nothing, one pair's pull is bounded, bad candidates are held."""

from __future__ import annotations

import random
import warnings

import pytest
import torch

from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.study import TorchReading
from edgeseq_core.settings import LearningSettings
from tests.learn.rig import SMALL, Learner, Pairs, numbered


def opened(learner: Learner, task: str) -> TaskLearner:
    """The learner in memory."""
    return learner.loop._open[task].learner


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (float("nan"), "loss"),
        (float("inf"), "loss"),
        (1e36, "gradient"),  # the loss can be held, the square of its gradient cannot
    ],
)
def test_a_step_that_is_not_finite_moves_no_weight(
    base: Base,
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
    reason: str,
) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 24))
    learner.learn(turns=1)
    task = opened(learner, "numbers")
    before = {name: t.detach().clone() for name, t in task.calibration.tensors.items()}
    average = {name: t.clone() for name, t in task.averages["average"].items()}
    real = TaskLearner._pull
    with monkeypatch.context() as patched:
        patched.setattr(TaskLearner, "_pull", lambda *a: factor * real(*a))
        (turn,) = learner.learn(turns=1)
    assert turn.step.skipped == reason
    assert task.progress.skipped == 1
    for name, tensor in task.calibration.tensors.items():
        kept = len(before[name]) if name in ("rows", "row_bias") else None
        assert torch.equal(tensor.detach()[:kept], before[name])
        assert torch.equal(task.averages["average"][name][:kept], average[name])
    (turn,) = learner.learn(turns=1)
    assert turn.step.skipped == ""
    learner.restart()
    learner.ingest("numbers", numbered(24, 32))
    learner.learn()
    assert opened(learner, "numbers").progress.skipped == 1


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_poisoned_calibration_never_serves(base: Base, poison: float) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 48))
    learner.learn(turns=3)
    champion, payload = learner.registry.status("numbers").champion, learner.payload("numbers")
    assert champion is not None
    task = opened(learner, "numbers")
    for tensors in (task.calibration.tensors, task.averages["average"]):
        with torch.no_grad():
            tensors["other_bias"].fill_(poison)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # casts of what is no number
        turns = learner.learn()
    assert turns
    assert all(turn.step.skipped == "loss" for turn in turns)
    assert [turn.gate.report.verdict for turn in turns if turn.gate] == ["hold"] * len(turns)
    assert learner.registry.status("numbers").champion == champion
    assert learner.payload("numbers") == payload


def test_one_pair_pulls_no_harder_than_the_clip(base: Base) -> None:
    learner = Learner(base, SMALL.model_copy(update={"label_smoothing": 0.0}))
    learner.ingest("numbers", numbered(0, 8))
    learner.learn(turns=1)
    task, clip = opened(learner, "numbers"), SMALL.loss_clip
    losses = torch.tensor([100.0, 2.0])  # 50 nats a token off, and 1
    tokens, row = torch.tensor([2.0, 2.0]), torch.tensor([0, 0, 1, 1])
    reading = TorchReading(losses, losses, tokens, [False, False], torch.zeros(4, 9), row)
    pull = task._pull(reading, torch.ones(2), torch.zeros(2, dtype=torch.bool))
    assert (losses * pull).sum().item() == pytest.approx((2 * clip + 2.0) / 4)
    assert pull.tolist() == pytest.approx([clip / 50 / 4, 1 / 4])


# --- the gate over a stream -----------------------------------------------------------------------

HASTY = SMALL.model_copy(  # learns so fast that a few wrong pairs spoil a candidate
    update={
        "recent_pairs": 16,
        "probe_pairs": 16,
        "held_out_share": 0.1,  # so the recent slice spans 160 pairs of the stream
        "replay_per_step": 4,
        "learning_rate": 4e-2,
        "warmup_steps": 1,
        "averaging": 0.0,
    }
)
QUESTIONS = [f"question {n}" for n in range(9_000, 9_020)]


def right(start: int, stop: int, answer: str) -> Pairs:
    return [(f"question {n}", answer) for n in range(start, stop)]


def shuffled(start: int, stop: int) -> Pairs:
    rng = random.Random(5)
    return [(f"question {n}", "".join(rng.choices("qwertzuiop", k=4))) for n in range(start, stop)]


def test_the_gate_holds_a_burst_of_shuffled_targets_and_promotes_after_a_lasting_drift(
    base: Base,
) -> None:
    learner = Learner(base, HASTY)
    learner.ingest("answers", right(0, 300, "yes"))
    learner.learn()
    assert set(learner.answers("answers", QUESTIONS)) == {"yes"}

    learner.ingest("answers", shuffled(400, 464))
    reports = [turn.gate.report for turn in learner.learn() if turn.gate]
    spoilt = [r for r in reports if r.candidate["recent"].exact < r.champion["recent"].exact - 1]
    assert reports[0].verdict == "hold"
    assert reports[0].reasons[0].startswith("recent ")
    assert spoilt
    assert {report.verdict for report in spoilt} == {"hold"}
    assert set(learner.answers("answers", QUESTIONS)) == {"yes"}

    learner.ingest("answers", right(1_000, 1_400, "no"))
    turns = learner.learn()
    assert any(turn.gate and turn.gate.serves for turn in turns)
    assert set(learner.answers("answers", QUESTIONS)) == {"no"}


def test_settings_are_those_of_production() -> None:
    """The guards that these tests rely on are on by default."""
    default = LearningSettings()
    assert 0 < default.loss_clip < 10
    assert default.norm_cap > 0
    assert default.held_out_share <= 0.05


def test_no_number_of_the_base_moves_or_gets_a_gradient(base: Base) -> None:
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 40))
    learner.learn()
    for name, p in base.model.named_parameters():
        assert p.grad is None
        assert torch.equal(p, before[name])
