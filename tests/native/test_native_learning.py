"""The native learning step against PyTorch's, with itself in other batches, and with nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.studies import settled, study_on
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.model.study import TorchStudy
from edgeseq_core.native.learning import NativeStudy, native, why_not
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.base import tiny_base

pytestmark = pytest.mark.skipif(native is None, reason="the native learning step was not built")
INSTRUCTIONS = native.instruction_sets() if native else []
PAIRS = [
    ("abc", "xyz"),
    ("a longer source, longer than a register", "ß"),
    ("b", "a longer target of 25 letters"),
    ("漢字", "漢 and ü"),
    ("z", "z"),
]
SOURCES, TARGETS = [source for source, _ in PAIRS], [target for _, target in PAIRS]
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "few heads of keys": {"heads": 4, "d_model": 64, "key_heads": 2},
    "pruned": {
        "heads": 2,
        "group_heads": (1, 2, 2, 1),
        "group_ffn": (48, 24, 7, 16),
        "decoder_ffn": 16,
    },
    "heads as wide as the model": {"heads": 1, "encoder_layers": 2},
}


@pytest.fixture(params=SHAPES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    return tiny_base(tmp_path, **SHAPES[request.param])


def calibration(base: Base, *, deep: bool, rank: int = 8, extra: int = 0) -> Calibration:
    """A calibration all of whose numbers do something."""
    layers = base.config.encoder_layers if deep else 1
    config = CalibrationConfig(rank=rank, encoder_layers=layers, extra_tokens=extra)
    made = Calibration(base.model, base.vocabulary, config)
    made.admit(TARGETS)
    made.admit_sources(SOURCES)
    draw = torch.Generator().manual_seed(1)
    for name, tensor in made.tensors.items():
        drawn = tensor.detach() + 0.05 * torch.randn(tensor.shape, generator=draw)
        made.tensors[name] = drawn.requires_grad_(True)
    return made


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(("deep", "rank", "extra"), [(False, 8, 0), (True, 3, 2), (True, 11, 0)])
def test_losses_and_gradients_are_those_of_pytorch(
    base: Base, instructions: str, deep: bool, rank: int, extra: int
) -> None:
    own = calibration(base, deep=deep, rank=rank, extra=extra)
    study = NativeStudy(base, instructions=instructions)
    assert study.instructions == instructions
    pull, found = torch.tensor([0.3, 1.0, 0.0, 2.0, 0.5]), {}
    for kind in (TorchStudy(base, BatchEncoder(base)), study):
        where = kind.features(own, SOURCES)
        reading = kind.read(own, SOURCES, TARGETS, smoothing=0.1)
        for tensor in own.tensors.values():
            tensor.grad = None
        reading.gradients(pull)
        gradients = {n: t.grad for n, t in own.tensors.items() if t.grad is not None}
        found[type(kind)] = (reading, where, gradients)
    (theirs, their_place, wanted), (ours, our_place, made) = found.values()
    assert torch.allclose(our_place, their_place, atol=1e-4)
    assert torch.allclose(ours.losses, theirs.losses.detach(), rtol=1e-5, atol=1e-4)
    assert torch.allclose(ours.plain, theirs.plain, rtol=1e-5, atol=1e-4)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert ours.exact == theirs.exact
    assert made.keys() == own.tensors.keys()
    for name, gradient in made.items():
        want = wanted.get(name, torch.zeros_like(gradient))
        assert (gradient - want).norm() < 5e-4 * want.norm() + 5e-6, name


def test_bits_depend_on_the_pairs_alone(base: Base) -> None:
    own, study = calibration(base, deep=False), NativeStudy(base)
    first = study.read(own, SOURCES, TARGETS, smoothing=0.1)
    first.gradients(torch.ones(5))
    before = {name: tensor.grad for name, tensor in own.tensors.items()}
    alone = [
        study.read(own, [source], [target], smoothing=0.1).losses.item() for source, target in PAIRS
    ]
    assert alone == first.losses.tolist()
    for again in (study, NativeStudy(base)):  # sources kept, and a new process
        reading = again.read(own, SOURCES, TARGETS, smoothing=0.1)
        assert torch.equal(reading.losses, first.losses)
        reading.gradients(torch.ones(5))
        for name, tensor in own.tensors.items():
            want, got = before[name], tensor.grad
            assert want is not None
            assert got is not None
            assert torch.equal(want, got), name


def test_what_frozen_layers_make_of_a_source_is_kept_and_forgotten(base: Base) -> None:
    own, study = calibration(base, deep=False), NativeStudy(base, capacity=3)
    place = study.features(own, SOURCES)
    assert len(study._kept) == 3
    assert torch.equal(study.features(own, SOURCES), place)
    study.forget()
    assert not study._kept


def test_nonsense_is_refused(base: Base) -> None:
    own, study = calibration(base, deep=False), NativeStudy(base)
    reading = study.read(own, SOURCES, TARGETS, smoothing=0.1)
    with pytest.raises(ValueError, match="pull"):
        reading.gradients(torch.ones(4))
    reading.gradients(torch.ones(5))
    with pytest.raises(ValueError, match="once"):
        reading.gradients(torch.ones(5))
    with pytest.raises(ValueError, match="longer than the model"):
        study.read(own, ["x" * 64], ["y"], smoothing=0.1)
    own.rows.append(10**6)
    with pytest.raises(ValueError, match="none of the symbols"):
        study.read(own, SOURCES, TARGETS, smoothing=0.1)
    with pytest.raises(ValueError, match="instructions"):
        NativeStudy(base, instructions="abacus")


@pytest.mark.parametrize(
    "shape", [{"output": "copy"}, {"decoder_ffn": 0}, {"heads": 4}, {"norm": "post-layer"}]
)
def test_other_bases_are_learnt_on_by_pytorch(tmp_path: Path, shape: dict[str, Any]) -> None:
    base = tiny_base(tmp_path, **shape)
    assert why_not(base.config)
    auto = settled(base, LearningSettings())
    assert auto.engine == "torch"
    assert isinstance(study_on(base, auto, BatchEncoder(base)), TorchStudy)
    with pytest.raises(ConfigError, match="cannot learn on this base"):
        study_on(base, LearningSettings(engine="native"), BatchEncoder(base))


def test_a_manifest_names_what_computed(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    assert settled(base, LearningSettings()).engine == "native"
    assert settled(base, LearningSettings(engine="torch")).engine == "torch"
