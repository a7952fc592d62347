"""Every source front end: one row a source, padding that no layer sees, and a decoder that reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.edgeformer import BaseWeights
from edgeseq_core.model.front import Series, SeriesFront, SourceFront, TextFront
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.text.vocabulary import BOS


def text(_at: int, length: int) -> str:
    return "abcdefghij字"[-length:]  # the last character is spelt with bytes


def series(at: int, length: int) -> Series:
    draw = torch.Generator().manual_seed(at)
    gaps = torch.rand(length, generator=draw) * 10
    return Series(gaps.cumsum(0) + 1e6, torch.randn(length, 2, generator=draw))


Made = tuple[SourceFront[Any], Callable[[int, int], Any], int]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder: Path = tmp_path_factory.mktemp("base")
    return tiny_base(folder)


@pytest.fixture(params=["text", "series"])
def made(request: pytest.FixtureRequest, base: Base) -> Made:
    """A front end, what makes sources for it, and how many tokens it adds to a source's length."""
    if request.param == "text":
        return TextFront(base.model, base.vocabulary), text, 3
    torch.manual_seed(0)
    return SeriesFront(2, base.config.d_model), series, 0


def test_rows_have_the_models_width_and_end_where_their_source_does(base: Base, made: Made) -> None:
    front, source, extra = made
    x, real = front.read([source(0, 3), source(1, 7), source(2, 1)])
    assert x.shape == (3, 7 + extra, base.config.d_model)
    assert real.dtype == torch.bool
    assert real.sum(1).tolist() == [3 + extra, 7 + extra, 1 + extra]
    assert not (real[:, 1:] & ~real[:, :-1]).any()  # padding only at the end


def test_a_row_depends_on_its_source_alone(made: Made) -> None:
    front, source, extra = made
    alone = front.read([source(0, 3)])
    batched = front.read([source(1, 9), source(0, 3)])
    assert torch.allclose(batched.x[1, : 3 + extra], alone.x[0], atol=1e-6)
    other = front.read([source(5, 4)])
    assert not torch.allclose(other.x[0, : 3 + extra], alone.x[0], atol=1e-3)


def test_encoder_and_decoder_read_it_and_see_no_padding(base: Base, made: Made) -> None:
    front, source, _ = made
    model = base.model
    weights = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    target = torch.tensor([[BOS, 80, 81]])

    def scores(sources: list[Any]) -> torch.Tensor:
        x, real = front.read(sources)
        x = model.run_encoder(x, real, weights, range(base.config.encoder_layers))
        no_symbols = torch.empty(len(sources), 0, dtype=torch.long)
        memory = model.memorize(x, real, weights, no_symbols)
        return model.scores(target.expand(len(sources), -1), memory, weights)

    with torch.no_grad():
        alone, padded = scores([source(0, 3)]), scores([source(0, 3), source(1, 9)])
    assert torch.allclose(alone[0], padded[0], atol=1e-5)
    assert not torch.allclose(padded[0], padded[1], atol=1e-3)


def test_the_origin_of_time_does_not_matter_but_gaps_do(base: Base) -> None:
    front = SeriesFront(2, base.config.d_model)
    times, values = torch.tensor([0.0, 1.0, 5.0]), torch.ones(3, 2)
    with torch.no_grad():
        here, later, slower = front.read(
            [Series(times, values), Series(times + 64, values), Series(times * 2, values)]
        ).x
    assert torch.equal(here, later)
    assert torch.equal(here[0], slower[0])
    assert not torch.allclose(here[1:], slower[1:])
