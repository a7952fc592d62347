"""A calibration starts as the identity, folds exactly, and touches no other task."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import GatheredWeights, MergedWeights
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.edgeformer import BaseWeights
from edgeseq_core.model.payload import MAX_ROWS
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.text.vocabulary import EOS

SHAPE = CalibrationConfig(rank=4, encoder_layers=1)


VARIANTS: dict[str, dict[str, Any]] = {
    "bands": {"bands": (270, 330)},
    "default": {},
    "copy": {"output": "copy"},
    "adapters": {"adaptation": "adapter", "adaptation_size": 3, "heads": 4, "key_heads": 2},
    "grown heads": {"heads": 6, "key_heads": 3, "head_size": 16},
    "prefix": {"adaptation": "prefix", "adaptation_size": 3, "norm": "post-layer"},
    "one wide FFN": {"decoder_ffn": 0, "positions": "linear", "decoder_mixer": "retention"},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), **VARIANTS[request.param])


def blank(base: Base, seed: int = 0) -> Calibration:
    return Calibration(base.model, base.vocabulary, SHAPE, seed=seed)


def moved(base: Base, seed: int = 0, targets: tuple[str, ...] = ("abc", "漢字")) -> Calibration:
    """A calibration with every number away from zero and two symbols that the base does not know."""
    calibration = blank(base, seed)
    calibration.admit(targets)
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in calibration.tensors.items():
        calibration.tensors[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=draw)
    return calibration


def rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randint(3, 300, (4, 9), generator=draw),
        torch.randint(3, 300, (4, 6), generator=draw),
    )


def test_a_new_calibration_is_the_exact_identity(base: Base) -> None:
    source, target = rows()
    model = base.model
    bare = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    with torch.no_grad():
        calibrated, plain = (
            model(source, target, MergedWeights(blank(base))),
            model(source, target, bare),
        )
    # Of embeddings in bands a task's table is the product, whose rounding is not that of its factors.
    assert torch.equal(calibrated, plain) or base.config.bands
    assert torch.allclose(calibrated, plain, rtol=0, atol=1e-5)


def test_known_symbols_are_admitted_without_changing_an_output(base: Base) -> None:
    source, target = rows()
    calibration = moved(base, targets=("abc",))
    with torch.no_grad():
        before = base.model(source, target, MergedWeights(calibration))
        assert calibration.admit(["xyz"]) == 3
        after = base.model(source, target, MergedWeights(calibration))
    assert torch.allclose(before, after, atol=1e-5)


def test_the_alphabet_is_what_targets_have_had(base: Base) -> None:
    calibration = moved(base, targets=("cab", "漢b"))
    assert calibration.alphabet == [EOS, *base.vocabulary.encode("abc"), len(base.vocabulary)]
    many = "".join(map(chr, range(0x4E00, 0x4E00 + MAX_ROWS)))
    calibration.admit([many])  # more symbols than there are rows: none is forbidden
    assert len(calibration.alphabet) == len(calibration.table)


def test_without_a_free_row_characters_are_spelt_as_the_base_does_and_none_is_forbidden(
    base: Base,
) -> None:
    shape = replace(SHAPE, encoder_layers=base.config.encoder_layers, most_rows=5)
    calibration = Calibration(base.model, base.vocabulary, shape)
    assert calibration.admit(["ab"]) == 2  # after EOS
    assert calibration.admit_sources(["漢字仮"]) == 2
    assert calibration.admit(["字"]) == 0
    assert calibration.table.encode("字") == base.vocabulary.encode("字")
    assert len(calibration.alphabet) == len(calibration.table) == len(base.vocabulary)
    payload = calibration.to_payload(base.digest)
    again = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
    assert again.config == shape
    assert again.alphabet == calibration.alphabet


def test_merged_and_gathered_agree_in_a_mixed_batch(base: Base) -> None:
    source, target = rows()
    one, two = moved(base, 1), moved(base, 2, ("xyz", "字"))
    target[1, 2] = base.config.vocabulary_size + 1  # an own symbol of task one, as decoder input
    index = torch.tensor([1, 0, 0, 1])
    with torch.no_grad():
        mixed = base.model(source, target, GatheredWeights(base.model, [one, two], index))
        alone = base.model(source[1:3], target[1:3], MergedWeights(one))
    width = alone.shape[-1]
    assert torch.allclose(mixed[1:3, :, :width], alone, atol=1e-4)


def test_symbols_of_another_task_can_never_win(base: Base) -> None:
    source, target = rows()
    few, many = moved(base, 1, ("ab",)), moved(base, 2, ("漢字仮名",))
    with torch.no_grad():
        scores = base.model(
            source, target, GatheredWeights(base.model, [few, many], torch.tensor([0, 1, 0, 1]))
        )
    own = slice(base.config.vocabulary_size, None)
    assert torch.isinf(scores[0, :, own]).all()
    assert torch.isfinite(scores[1, :, own]).all()


def test_payload_round_trip_is_stable_and_equal_content_has_equal_bytes(base: Base) -> None:
    payload = moved(base).to_payload(base.digest)
    again = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
    assert again.to_payload(base.digest) == payload == moved(base).to_payload(base.digest)
    assert again.table.symbols == ("漢", "字")


def test_int8_stays_close_to_fp32(base: Base) -> None:
    source, target = rows()
    exact = moved(base)
    served = Calibration.from_payload(
        exact.to_payload(base.digest), base.model, base.vocabulary, base.digest
    )
    with torch.no_grad():
        a = base.model(source, target, MergedWeights(exact)).flatten()
        b = base.model(source, target, MergedWeights(served)).flatten()
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.999


@pytest.mark.parametrize(
    "damage",
    [
        lambda _payload: b"",
        lambda payload: payload[:100],
        lambda payload: b"\xff" * 8 + payload[8:],
        lambda payload: payload.replace(b"edgeseq-calibration-1", b"edgeseq-calibration-9"),
        lambda payload: payload.replace(b'\\"rank\\": 4', b'\\"rank\\": 5'),
        lambda payload: payload + b"\0" * (9 << 20),
    ],
)
def test_bytes_that_are_no_calibration_are_refused(base: Base, damage: object) -> None:
    assert callable(damage)
    broken = damage(moved(base).to_payload(base.digest))
    with pytest.raises(SnapshotError):
        Calibration.from_payload(broken, base.model, base.vocabulary, base.digest)


def test_a_calibration_of_another_base_is_refused(base: Base, tmp_path: Path) -> None:
    other = tiny_base(tmp_path, seed=5)
    with pytest.raises(SnapshotError, match="belongs to base"):
        Calibration.from_payload(
            moved(base).to_payload(base.digest), other.model, other.vocabulary, other.digest
        )
