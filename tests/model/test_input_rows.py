"""Own rows for the characters of sources: nothing at first, the same in any batch, kept and grown."""

import pytest
import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import GatheredWeights, MergedWeights
from edgeseq_core.model.calibration import MAX_ROWS, SOURCE_ROWS, Calibration, CalibrationConfig
from edgeseq_core.model.growth import grow
from edgeseq_core.model.sites import Weights
from edgeseq_core.model.source_encoder import BatchEncoder, CachingEncoder, SourceEncoder
from edgeseq_core.testing.base import tiny_base

WHOLE = CalibrationConfig(rank=2, encoder_layers=3)
SHALLOW = CalibrationConfig(rank=2, encoder_layers=1)
SOURCES = ["cab漢", "字", "a longer one"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), output="copy")


def moved(base: Base, shape: CalibrationConfig = WHOLE, seed: int = 0) -> Calibration:
    calibration = Calibration(base.model, base.vocabulary, shape, seed=seed)
    calibration.admit_sources(SOURCES[:2])
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in calibration.tensors.items():
        calibration.tensors[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=draw)
    return calibration


def scores(
    base: Base, weights: Weights, calibrations: list[Calibration], encoder: SourceEncoder
) -> torch.Tensor:
    """Of the sources, one a calibration."""
    tables = [calibration.table for calibration in calibrations]
    target = torch.tensor([[1, 80, 90]] * len(tables))
    with torch.no_grad():
        memory = encoder.encode(SOURCES[: len(tables)], tables, weights)
        return base.model.scores(target, memory, weights)


def alone(base: Base, calibration: Calibration, encoder: SourceEncoder) -> torch.Tensor:
    return scores(base, MergedWeights(calibration), [calibration] * 3, encoder)


def test_new_rows_change_no_bit_and_only_add_to_those_there(base: Base) -> None:
    calibration, encoder = moved(base), BatchEncoder(base)
    before, rows = alone(base, calibration, encoder), list(calibration.inputs.rows)
    assert len(rows) == 5  # c a b 漢 字
    assert calibration.admit_sources(["bad語"]) == 2
    assert calibration.inputs.rows[:5] == rows
    assert torch.equal(alone(base, calibration, encoder), before)


def test_a_row_changes_only_sources_with_its_character(base: Base) -> None:
    """A character that the base spells in three bytes has one row, added to each of them."""
    calibration, encoder = moved(base), BatchEncoder(base)
    before = alone(base, calibration, encoder)
    calibration.tensors[SOURCE_ROWS][-1] += 1.0  # of 字
    after = alone(base, calibration, encoder)
    assert calibration.inputs.of("字") == [5, 5, 5, 0]
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_a_calibration_that_leaves_the_bottom_alone_gets_none(base: Base) -> None:
    calibration = Calibration(base.model, base.vocabulary, SHALLOW)
    assert calibration.admit_sources(SOURCES) == 0
    assert SOURCE_ROWS not in calibration.tensors
    assert MergedWeights(calibration).own_inputs(SOURCES) is None


def test_tasks_with_and_without_rows_share_a_batch_in_both_encoders(base: Base) -> None:
    tasks = [moved(base, seed=1), moved(base, SHALLOW, seed=2), moved(base, seed=3)]
    tasks[2].admit_sources(["longer"])
    index = torch.tensor([2, 0, 1])
    weights = GatheredWeights(base.model, tasks, index)
    for encoder in (BatchEncoder(base), CachingEncoder(base, calibrated_layers=1)):
        mixed = scores(base, weights, [tasks[at] for at in index], encoder)
        for row, at in enumerate(index.tolist()):
            own = alone(base, tasks[at], encoder)[row]
            torch.testing.assert_close(mixed[row], own, atol=1e-4, rtol=1e-4)


def test_what_is_kept_of_a_source_is_of_no_task(base: Base) -> None:
    encoder = CachingEncoder(base, calibrated_layers=3)
    alone(base, moved(base, seed=1), encoder)
    warm, cold = (alone(base, moved(base, seed=2), one) for one in (encoder, BatchEncoder(base)))
    torch.testing.assert_close(warm, cold, atol=1e-5, rtol=1e-5)


def test_the_payload_keeps_them_and_has_nothing_of_them_when_unused(base: Base) -> None:
    calibration = moved(base)
    payload = calibration.to_payload(base.digest)
    served = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
    assert served.to_payload(base.digest) == payload
    assert served.inputs.of("字a") == calibration.inputs.of("字a")
    a, b = (alone(base, one, BatchEncoder(base)).flatten() for one in (calibration, served))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.999
    unused = Calibration(base.model, base.vocabulary, WHOLE)
    assert (
        SOURCE_ROWS
        not in Calibration.from_payload(
            unused.to_payload(base.digest), base.model, base.vocabulary, base.digest
        ).tensors
    )


def test_they_outlive_growth(base: Base) -> None:
    small = moved(base)
    large = grow(small, CalibrationConfig(rank=4, encoder_layers=3, extra_tokens=1), seed=1)
    encoder = BatchEncoder(base)
    before, after = alone(base, small, encoder), alone(base, large, encoder)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_there_are_at_most_so_many(base: Base) -> None:
    calibration = Calibration(base.model, base.vocabulary, WHOLE)
    calibration.admit_sources(["".join(map(chr, range(0x4E00, 0x4E00 + MAX_ROWS + 9)))])
    assert len(calibration.inputs.rows) == MAX_ROWS == len(calibration.tensors[SOURCE_ROWS])
    spelt = calibration.inputs.of(chr(0x4E00 + MAX_ROWS))  # as the base spells it
    assert spelt == [0, 0, 0, 0]
