"""A grown calibration answers as before, to the bytes that serve; grown and small ones share a batch."""

from typing import Any

import pytest
import torch

from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.errors import ConfigError
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import GatheredWeights, MergedWeights
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.growth import grow
from edgeseq_core.model.sites import Weights
from edgeseq_core.model.source_encoder import BatchEncoder, CachingEncoder
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.testing.base import tiny_base

SMALL = CalibrationConfig(rank=2, encoder_layers=1)
LARGER = [
    CalibrationConfig(rank=5, encoder_layers=1),
    CalibrationConfig(rank=2, encoder_layers=3),
    CalibrationConfig(rank=2, encoder_layers=1, extra_tokens=7),
    CalibrationConfig(rank=3, encoder_layers=2, extra_tokens=1),
]


VARIANTS: dict[str, dict[str, Any]] = {
    "bands": {"bands": (270, 330)},
    "default": {},
    "copy": {"output": "copy"},
    "linear positions, prefix": {
        "positions": "linear",
        "adaptation": "prefix",
        "adaptation_size": 2,
    },
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), **VARIANTS[request.param])


def moved(base: Base, shape: CalibrationConfig = SMALL, seed: int = 0) -> Calibration:
    """A calibration with every number away from zero."""
    calibration = Calibration(base.model, base.vocabulary, shape, seed=seed)
    calibration.admit(["abc", "漢字"][: 1 + seed % 2])
    return moving(calibration, seed)


def moving(calibration: Calibration, seed: int) -> Calibration:
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in calibration.tensors.items():
        calibration.tensors[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=draw)
    return calibration


def scores(base: Base, weights: Weights, seed: int = 0, rows: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    source = torch.randint(3, 300, (rows, 9), generator=draw)
    target = torch.randint(3, 300, (rows, 6), generator=draw)
    source[0, 5:] = 0
    with torch.no_grad():
        return base.model(source, target, weights).log_softmax(-1)


@pytest.mark.parametrize("shape", LARGER)
def test_growth_changes_no_output(base: Base, shape: CalibrationConfig) -> None:
    small = moved(base)
    large = grow(small, shape, seed=1)
    assert large.numbers > small.numbers
    before, after = scores(base, MergedWeights(small)), scores(base, MergedWeights(large))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", LARGER)
def test_the_int8_payload_serves_as_before(base: Base, shape: CalibrationConfig) -> None:
    small = moved(base)
    served = [
        Calibration.from_payload(
            one.to_payload(base.digest), base.model, base.vocabulary, base.digest
        )
        for one in (small, grow(small, shape, seed=1))
    ]
    assert served[1].config == shape
    before, after = (scores(base, MergedWeights(one)) for one in served)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)


def test_growth_goes_on_from_what_was_grown_and_learnt(base: Base) -> None:
    grown = moving(grow(moved(base), LARGER[3], seed=1), seed=5)
    again = grow(grown, CalibrationConfig(rank=4, encoder_layers=3, extra_tokens=6), seed=2)
    before, after = scores(base, MergedWeights(grown)), scores(base, MergedWeights(again))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", LARGER)
def test_what_has_grown_can_learn(base: Base, shape: CalibrationConfig) -> None:
    """A gradient reaches what would change an output: zeros beside random numbers, and both halves."""
    small = moved(base)
    large = grow(small, shape, seed=1)
    for name, tensor in large.tensors.items():
        large.tensors[name] = tensor.requires_grad_(True)
    source = torch.randint(3, 300, (2, 5), generator=torch.Generator().manual_seed(0))
    base.model(source, source, MergedWeights(large)).log_softmax(-1)[..., 3].sum().backward()
    for name, tensor in large.tensors.items():
        assert tensor.grad is not None
        new = tensor.grad.clone()
        if name in small.tensors:
            new[tuple(map(slice, small.tensors[name].shape))] = 0
        if name.endswith(".b") or name == "token":
            grew = name not in small.tensors or new.numel() > small.tensors[name].numel()
            assert bool(new.any()) == grew, name


def test_a_calibration_never_shrinks_and_has_no_more_layers_than_the_base(base: Base) -> None:
    small = moved(base)
    with pytest.raises(ConfigError, match="rank is 2 and cannot become 1"):
        grow(small, CalibrationConfig(rank=1), seed=0)
    with pytest.raises(ConfigError, match="the base has 3 encoder layers"):
        grow(small, CalibrationConfig(rank=2, encoder_layers=4), seed=0)


def test_growth_is_told_as_a_share_of_the_base(base: Base) -> None:
    small = moved(base)
    large = grow(small, LARGER[2], seed=0)
    added = 7 * base.config.d_model / base.config.parameters
    assert large.share_of_base - small.share_of_base == pytest.approx(added)


def test_any_shapes_share_a_batch(base: Base) -> None:
    shapes = [CalibrationConfig(rank=4, encoder_layers=0), SMALL, *LARGER]
    tasks = [moved(base, shape, seed) for seed, shape in enumerate(shapes)]
    index = torch.tensor([3, 0, 5, 1, 4, 2, 0, 3])
    mixed = scores(base, GatheredWeights(base.model, tasks, index), rows=8)
    for at, calibration in enumerate(tasks):
        alone = scores(base, MergedWeights(calibration), rows=8)
        rows, width = index == at, alone.shape[-1]
        torch.testing.assert_close(mixed[rows][..., :width], alone[rows], atol=1e-5, rtol=0)


def test_an_engine_answers_tasks_of_any_shape_as_each_alone(base: Base) -> None:
    engine = TorchEngine(base)
    for seed, shape in enumerate([SMALL, *LARGER]):
        engine.swap(f"t{seed}", "s", moved(base, shape, seed).to_payload(base.digest))
    rows = [SourceRow(f"t{n % 5}", f"some text {n}", 1 + n % 3) for n in range(10)]
    for row, made in zip(rows, engine.generate(rows, Limits(max_tokens=10)), strict=True):
        (alone,) = engine.generate([row], Limits(max_tokens=10))
        assert (made.target, made.stop) == (alone.target, alone.stop)
        assert made.confidence == pytest.approx(alone.confidence, rel=1e-3)


def test_cached_layers_are_never_those_that_a_task_changes(base: Base) -> None:
    cached, plain = CachingEncoder(base, calibrated_layers=1), BatchEncoder(base)
    for shape in (SMALL, LARGER[1], SMALL):  # the second reaches below what the first has cached
        calibration = moved(base, shape)
        weights, tables = MergedWeights(calibration), [calibration.table] * 2
        with torch.no_grad():
            kept = cached.encode(["some text", "other"], tables, weights)
            made = plain.encode(["some text", "other"], tables, weights)
        for one, other in zip(kept.values, made.values, strict=True):
            real = ~made.mask.isinf().squeeze(1).transpose(1, 2)[:, None]
            torch.testing.assert_close(one * real, other * real, atol=1e-5, rtol=0)
