"""Embeddings in bands against explicit dense ones, and against PyTorch's own adaptive softmax."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from edgeseq_core.model.bands import Embedding
from edgeseq_core.model.base import Base
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.model.layout import ROWS
from edgeseq_core.testing.base import tiny_base, write_tiny_base

BANDS = (270, 330)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), bands=BANDS)


def weights(model: EdgeFormer) -> BaseWeights:
    return BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])


def hidden(model: EdgeFormer) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randn(2, 7, model.config.d_model, generator=draw)


def test_looking_up_and_scoring_are_those_of_the_dense_table(base: Base) -> None:
    tokens, size = base.model.tokens, base.config.vocabulary_size
    table = tokens.table()
    assert table.shape == (size, base.config.d_model)
    ids = torch.arange(size).view(1, -1)
    assert torch.allclose(tokens.look_up(ids)[0], table, atol=1e-5)
    states = hidden(base.model)
    assert torch.allclose(tokens.score(states), states @ table.T, atol=1e-5)


def test_the_rows_that_are_read_are_those_that_score(base: Base) -> None:
    (first, out), _ = base.model.tokens.tails
    assert first.data_ptr() == base.model.tails["0_rows"].data_ptr()
    assert base.model.tokens.first.data_ptr() == base.model.embedding.data_ptr()
    assert out.shape == (base.config.d_model, base.config.d_model // 4)


def test_probabilities_are_those_of_pytorchs_adaptive_softmax(base: Base) -> None:
    model, d, size = base.model, base.config.d_model, base.config.vocabulary_size
    peer = nn.AdaptiveLogSoftmaxWithLoss(d, size, list(BANDS), div_value=4.0, head_bias=True)
    with torch.no_grad():
        model.vocabulary_bias[: BANDS[0]].normal_()  # the peer has no biases in tails
        model.bias("decoder.bands", "tails").normal_()
        clusters = model.matrix("decoder.bands", "tails")
        peer.head.weight.copy_(torch.cat([model.embedding, clusters]))
        peer.head.bias.copy_(
            torch.cat([model.vocabulary_bias[: BANDS[0]], model.bias("decoder.bands", "tails")])
        )
        for own, (rows, out) in zip(peer.tail, model.tokens.tails, strict=True):
            own[0].weight.copy_(out.T)
            own[1].weight.copy_(rows)
        states = hidden(model)
        ours = model.output.scores(states, None, weights(model), 0, ROWS)
        theirs = peer.log_prob(states.flatten(0, 1)).view_as(ours)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(ours.exp().sum(-1), torch.ones(2, 7), atol=1e-5)


def test_a_gradient_reaches_every_part(base: Base) -> None:
    model = EdgeFormer(base.config)
    ids = torch.tensor([[3, 275, 340, 300]])
    scores = model(ids, ids, weights(model))
    scores[0, torch.arange(4), ids[0]].sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("tails", "embedding", "matrices.bands", "biases.decoder_bands")):
            assert parameter.grad is not None
            assert bool(parameter.grad.any()), name


def test_the_file_is_smaller_and_holds_int8(base: Base, tmp_path: Path) -> None:
    banded = write_tiny_base(tmp_path / "banded.safetensors", bands=BANDS)
    dense = write_tiny_base(tmp_path / "dense.safetensors")
    assert banded.stat().st_size < dense.stat().st_size
    stored = load_file(banded)
    for name in ("embedding", *(f"tails.{at}_{part}" for at in (0, 1) for part in ("rows", "out"))):
        assert stored[name].dtype == np.int8
    assert stored["embedding"].shape == (BANDS[0], base.config.d_model)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bands": (100,)}, "after the bytes"),
        ({"bands": (330, 270)}, "rise"),
        ({"bands": (400,)}, "before the vocabulary does"),
        ({"bands": BANDS, "output": "copy"}, "only"),
        ({"bands": (270, 300, 330)}, "divide"),
    ],
)
def test_bands_that_cannot_be_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(vocabulary_size=360, d_model=32, heads=2, **wrong)  # type: ignore[arg-type]


def test_without_tails_the_table_is_the_parameter_itself() -> None:
    first = torch.randn(5, 4)
    assert Embedding(first, nn.ParameterDict()).table() is first
