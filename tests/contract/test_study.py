"""What every study promises, by PyTorch and by each set of native instructions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.lessons import Teaching, TopK
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.model.study import Reading, Study, TorchStudy
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.text.vocabulary import EOS
from tests.contract.studies import (
    CASES,
    SHAPES,
    SOURCES,
    TARGETS,
    TORCH_SHAPES,
    calibration,
    new_study,
)

PULL = torch.tensor([0.3, 1.0, 0.0, 2.0, 0.5])
Case = tuple[Base, Study]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case).replace(" ", "_"))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    kind, shape = request.param
    base = tiny_base(tmp_path, **(SHAPES | TORCH_SHAPES)[shape])
    return base, new_study(kind, base)


def read(study: Study, own: Calibration) -> Reading:
    return study.read(own, SOURCES, TARGETS, smoothing=0.1)


def gradients(
    own: Calibration, reading: Reading, teaching: Teaching | None = None
) -> dict[str, Tensor]:
    """Of `PULL`, by name; zeros where a tensor has none."""
    for tensor in own.tensors.values():
        tensor.grad = None
    reading.gradients(PULL, teaching)
    return {
        name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in own.tensors.items()
    }


def assert_close(made: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert made.keys() == wanted.keys()
    for name, want in wanted.items():
        assert (made[name] - want).norm() < 5e-4 * want.norm() + 5e-6, name


def others(base: Base, own: Calibration, *, k: int) -> list[TopK]:
    """What a teacher with other numbers says."""
    teacher = calibration(base, deep=own.config.encoder_layers > 1, rank=own.config.rank)
    for name, tensor in teacher.tensors.items():
        teacher.tensors[name] = (1.5 * tensor.detach()).requires_grad_(True)
    return read(TorchStudy(base, BatchEncoder(base)), teacher).said(k)


@pytest.mark.parametrize(("deep", "rank", "extra"), [(False, 8, 0), (True, 3, 2), (True, 11, 0)])
def test_losses_and_gradients_are_those_of_the_whole_network(
    case: Case, deep: bool, rank: int, extra: int
) -> None:
    base, study = case
    own = calibration(base, deep=deep, rank=rank, extra=extra)
    reference = TorchStudy(base, BatchEncoder(base))
    assert torch.allclose(study.features(own, SOURCES), reference.features(own, SOURCES), atol=1e-4)
    theirs, ours = read(reference, own), read(study, own)
    assert torch.allclose(ours.losses, theirs.losses.detach(), rtol=1e-5, atol=1e-4)
    assert torch.allclose(ours.plain, theirs.plain, rtol=1e-5, atol=1e-4)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert ours.exact == theirs.exact
    made = gradients(own, ours)
    assert_close(made, gradients(own, theirs))


def test_what_is_said_of_each_token_is_what_the_whole_network_says(case: Case) -> None:
    base, study = case
    own = calibration(base, deep=False)
    theirs, ours = read(TorchStudy(base, BatchEncoder(base)), own), read(study, own)
    said = ours.said(24)
    assert [len(one.ids) for one in said] == ours.tokens.int().tolist()
    for pair, (one, want) in enumerate(zip(said, theirs.said(24), strict=True)):
        wanted = torch.tensor([*own.table.encode(TARGETS[pair]), EOS])
        assert torch.allclose(one.log_probabilities, want.log_probabilities, atol=1e-4)
        assert torch.equal(one.ids[:, 0], want.ids[:, 0])
        assert bool((one.ids[:, 0] == wanted).all()) == ours.exact[pair]
        found = one.ids == wanted[:, None]
        if found.any(-1).all():
            loss = -one.log_probabilities[found].sum().item()
            assert loss == pytest.approx(ours.plain[pair].item(), abs=1e-3)


@pytest.mark.parametrize("k", [1, 8])
def test_a_teacher_pulls_as_in_the_whole_network(case: Case, k: int) -> None:
    base, study = case
    own = calibration(base, deep=False)
    said: list[TopK | None] = list(others(base, own, k=k))
    said[1] = None
    teaching = Teaching(said, weight=0.7)
    untaught = gradients(own, read(study, own))
    made = gradients(own, read(study, own), teaching)
    reference = TorchStudy(base, BatchEncoder(base))
    assert_close(made, gradients(own, read(reference, own), teaching))
    assert any(not torch.allclose(made[n], untaught[n], atol=1e-4) for n in made)


def test_a_teacher_of_the_same_opinion_changes_nothing(case: Case) -> None:
    base, study = case
    own = calibration(base, deep=False)
    untaught = gradients(own, read(study, own))
    reading = read(study, own)
    teaching = Teaching(reading.said(8), weight=5.0)
    assert_close(gradients(own, reading, teaching), untaught)


def test_a_source_that_was_forgotten_reads_the_same(case: Case) -> None:
    base, study = case
    own = calibration(base, deep=False)
    before, place = read(study, own).losses.detach().clone(), study.features(own, SOURCES)
    study.forget()
    assert torch.equal(read(study, own).losses.detach(), before)
    assert torch.equal(study.features(own, SOURCES), place)
