"""A learning step's gradients by hand against autograd's through merged weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from edgeseq_core.model.base import Base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.learning_weights import LearningWeights, token_losses
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.text.vocabulary import BOS, EOS, PAD

PAIRS = [("abc", "xyz"), ("a longer source", "ß"), ("b", "a longer target"), ("漢字", "漢 and ü")]
SHAPES = {
    "as shipped": {},
    "copy path": {"output": "copy"},
    "linear positions": {"positions": "linear"},
    "retention": {"encoder_mixer": "retention", "decoder_mixer": "retention"},
    "norms after": {"norm": "post-layer"},
    "bands": {"bands": (270, 330)},
    "few heads of keys": {"key_heads": 1},
    "no decoder FFN": {"decoder_ffn": 0},
}


@pytest.fixture(params=SHAPES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    return tiny_base(tmp_path, **SHAPES[request.param])


def calibration(base: Base, layers: int) -> Calibration:
    """A calibration all of whose numbers do something."""
    made = Calibration(
        base.model, base.vocabulary, CalibrationConfig(rank=3, encoder_layers=layers)
    )
    made.admit(target for _, target in PAIRS)
    made.admit_sources(source for source, _ in PAIRS)
    draw = torch.Generator().manual_seed(1)
    for name, tensor in made.tensors.items():
        drawn = tensor.detach() + 0.05 * torch.randn(tensor.shape, generator=draw)
        made.tensors[name] = drawn.requires_grad_(True)
    return made


@pytest.mark.parametrize("deep", [False, True])
def test_losses_and_gradients_are_those_of_merged_weights(base: Base, deep: bool) -> None:
    own = calibration(base, base.config.encoder_layers if deep else 1)
    sources, tables = [source for source, _ in PAIRS], [own.table] * len(PAIRS)
    target = pad([[BOS, *own.table.encode(text), EOS] for _, text in PAIRS])
    encoder, wanted = BatchEncoder(base), target[:, 1:]

    merged = MergedWeights(own)
    scores = base.model.scores(
        target[:, :-1], encoder.encode(sources, tables, merged), merged
    ).flatten(0, 1)
    expected = F.cross_entropy(
        scores, wanted.flatten(), ignore_index=PAD, reduction="none", label_smoothing=0.1
    ).view_as(wanted)
    pull = torch.tensor([0.3, 1.0, 0.0, 2.0])
    (expected.sum(1) * pull).sum().backward()
    by_autograd = {name: tensor.grad for name, tensor in own.tensors.items()}
    for tensor in own.tensors.values():
        tensor.grad = None

    weights = LearningWeights(own)
    said = base.model.forced(target, encoder.encode(sources, tables, weights), weights)
    losses, plain = token_losses(said.scores, said.wanted, 0.1)
    assert torch.allclose(losses, expected[wanted != PAD], atol=2e-5)
    exact = F.cross_entropy(said.scores, said.wanted, reduction="none")
    assert torch.allclose(plain, exact, atol=1e-5)
    (losses * pull[said.row]).sum().backward()
    for name, tensor in own.tensors.items():
        want = by_autograd[name]
        if want is None or not want.any():
            assert tensor.grad is None or tensor.grad.abs().max() < 1e-5, name
            continue
        assert tensor.grad is not None, name
        assert (tensor.grad - want).norm() < 2e-4 * want.norm() + 5e-6, name
