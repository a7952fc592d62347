"""The native learning step with itself in other batches and with nonsense (its numbers: tests/contract)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.studies import settled, study_on
from edgeseq_core.model.base import Base
from edgeseq_core.model.lessons import Teaching, TopK
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.model.study import TorchStudy
from edgeseq_core.native.learning import NativeStudy, native, why_not
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.base import tiny_base
from tests.contract.studies import PAIRS, SHAPES, SOURCES, TARGETS, calibration

pytestmark = pytest.mark.skipif(native is None, reason="the native learning step was not built")


@pytest.fixture(params=SHAPES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    return tiny_base(tmp_path, **SHAPES[request.param])


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
    said = reading.said(2)
    unknown = [TopK(one.ids + 10**6, one.log_probabilities) for one in said]
    with pytest.raises(ValueError, match="a teacher says does not fit"):
        reading.gradients(torch.ones(5), Teaching(unknown, weight=1.0))
    with pytest.raises(ValueError, match="so many symbols"):
        reading.said(10**6)
    reading.gradients(torch.ones(5))
    with pytest.raises(ValueError, match="once"):
        reading.gradients(torch.ones(5))
    with pytest.raises(ValueError, match="before its gradients"):
        reading.said(2)
    study.read(own, SOURCES, TARGETS, smoothing=0.1)
    with pytest.raises(ValueError, match="read last"):
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
