"""What is offered: the moving average, the slower one of two, or the mean of the last champions."""

from __future__ import annotations

import torch

from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.text.vocabulary import EOS
from tests.learn.strategies.pupils import TASK, pupil, take


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return sum(float((one[name] - other[name]).square().sum()) for name in one)


def test_the_stable_average_lags_behind_and_is_offered(base: Base) -> None:
    learner = pupil(base, steps=12, average="ema-pair", stable_averaging=0.99)
    now = {name: t.detach() for name, t in learner.calibration.tensors.items()}
    assert distance(learner.averages["stable"], now) > distance(learner.averages["average"], now)
    assert learner.averaged().tensors is learner.averages["stable"]
    assert learner.alternative() is None


def test_the_mean_of_the_last_champions_is_the_alternative(base: Base) -> None:
    learner, seen = pupil(base, average="snapshots", averaged_champions=3), []
    assert learner.alternative() is None
    for at in range(3, 7):
        payload = learner.payload()
        seen.append(Calibration.from_payload(payload, base.model, base.vocabulary, base.digest))
        learner.follow(f"numbers-{at}-abc", payload)
        take(learner, at, at + 1)
        assert learner.notes["champion"] == f"numbers-{at}-abc"
    assert learner.notes["champions"] == 2
    first = seen[0].tensors["token"]
    mean = (first + seen[1].tensors["token"]) / 2
    for champion in seen[2:]:
        mean = mean + (champion.tensors["token"] - mean) / 3
    assert torch.allclose(learner.averages["champions"]["token"], mean, atol=1e-6)
    alternative = learner.alternative()
    assert alternative is not None
    offered = Calibration.from_payload(alternative, base.model, base.vocabulary, base.digest)
    wanted = mean + (learner.averages["average"]["token"] - mean) / 3
    assert torch.allclose(offered.tensors["token"], wanted, atol=0.02)


def test_a_checkpoint_of_another_strategy_is_gone_on_with(base: Base) -> None:
    single = pupil(base)
    pair = pupil(base, steps=0, average="ema-pair")
    resumed = TaskLearner.from_checkpoint(
        single.to_checkpoint(), base, TASK, pair.config, pair.study
    )
    for name, tensor in single.averages["average"].items():
        assert torch.equal(resumed.averages["stable"][name], tensor)
    take(resumed, 3, 8)
    assert resumed.averages["stable"]["rows"] is not resumed.averages["average"]["rows"]
    again = TaskLearner.from_checkpoint(
        resumed.to_checkpoint(), base, TASK, single.config, single.study
    )
    assert list(again.averages) == ["average"]
    assert EOS in again.calibration.rows
