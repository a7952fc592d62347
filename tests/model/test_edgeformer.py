"""The checks that prove an EdgeFormer: sharing, size, cache, padding, gradients of shared matrices."""

from pathlib import Path

import pytest
import torch

from edgeseq_core.model.config import PRESETS, preset
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer, sites
from edgeseq_core.testing.base import tiny_base

TEN_MILLION = 10_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EdgeFormer:
    return tiny_base(tmp_path_factory.mktemp("base")).model


def weights(model: EdgeFormer) -> BaseWeights:
    return BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])


@pytest.mark.parametrize("name", ["128", "256"])
def test_count_equals_the_closed_formula(name: str) -> None:
    config = preset(name, vocabulary_size=1_000)
    model = EdgeFormer(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_under_ten_million(name: str) -> None:
    # A calibration (about 3 % at d = 512) comes on top.
    assert preset(name, vocabulary_size=1_500).parameters < 0.97 * TEN_MILLION


def test_matrices_are_shared_in_cycles() -> None:
    model = EdgeFormer(preset("128", vocabulary_size=300))
    for part in ("q", "k", "v", "o"):
        same = model.matrix("encoder.0.self", part).data_ptr()
        assert model.matrix("encoder.4.self", part).data_ptr() == same
        assert model.matrix("decoder.0.self", part).data_ptr() == same
        assert model.matrix("encoder.1.self", part).data_ptr() != same
        assert (
            model.matrix("decoder.1.cross", part).data_ptr()
            == model.matrix("encoder.3.self", part).data_ptr()
        )
    assert model.matrix("encoder.0.ffn", "up") is model.matrix("encoder.2.ffn", "up")
    assert model.matrix("decoder.0.ffn1", "up") is model.matrix("decoder.0.ffn2", "up")
    assert model.matrix("decoder.0.ffn1", "up") is not model.matrix("decoder.1.ffn1", "up")
    assert model.bias("encoder.0.self", "q") is not model.bias("encoder.4.self", "q")


def test_cached_steps_equal_teacher_forcing(model: EdgeFormer) -> None:
    source, target = torch.randint(3, 300, (5, 9)), torch.randint(3, 300, (5, 11))
    w = weights(model)
    with torch.no_grad():
        whole = model(source, target, w)
        memory, cache = model.encode(source, w), model.new_cache(5, 11)
        steps = [w.logits(model.decode(target[:, t : t + 1], memory, w, cache)) for t in range(11)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_padding_changes_nothing(model: EdgeFormer) -> None:
    source, target = torch.randint(3, 300, (2, 7)), torch.randint(3, 300, (2, 5))
    padded = torch.cat([source, torch.zeros(2, 6, dtype=torch.long)], 1)
    with torch.no_grad():
        assert torch.allclose(
            model(source, target, weights(model)), model(padded, target, weights(model)), atol=1e-5
        )


def test_a_later_token_cannot_change_an_earlier_score(model: EdgeFormer) -> None:
    source, target = torch.randint(3, 300, (1, 6)), torch.randint(3, 300, (1, 6))
    other = target.clone()
    other[0, -1] = 3 if target[0, -1] != 3 else 4
    with torch.no_grad():
        a, b = model(source, target, weights(model)), model(source, other, weights(model))
    assert torch.equal(a[:, :-1], b[:, :-1])
    assert not torch.equal(a[:, -1], b[:, -1])


def test_gradient_of_a_shared_matrix_is_the_sum_over_its_uses() -> None:
    torch.manual_seed(0)
    model = EdgeFormer(preset("128", vocabulary_size=300))
    source, target = torch.randint(3, 300, (2, 6)), torch.randint(3, 300, (2, 4))
    model(source, target, weights(model)).square().mean().backward()
    shared = model.matrix("encoder.0.self", "q").grad
    assert shared is not None

    class Untied(BaseWeights):
        """Every use of group attention0's q gets a copy of its own."""

        def __init__(self) -> None:
            super().__init__(model, model.task_tokens[None], model.task_vector[None, None])
            group = [s.name for s in sites(model.config) if s.group == "attention0"]
            start = model.matrix("encoder.0.self", "q").detach()
            self.copies = {name: start.clone().requires_grad_(True) for name in group}

        def project(self, x: torch.Tensor, site: str, part: str) -> torch.Tensor:
            if part == "q" and site in self.copies:
                return torch.nn.functional.linear(x, self.copies[site], model.bias(site, part))
            return super().project(x, site, part)

    untied = Untied()
    model(source, target, untied).square().mean().backward()
    total = sum(copy.grad for copy in untied.copies.values() if copy.grad is not None)
    assert len(untied.copies) == 3
    assert torch.allclose(shared, torch.as_tensor(total), atol=1e-6)


def test_a_base_file_keeps_every_matrix_within_its_rounding(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    torch.manual_seed(0)
    again = tiny_base(tmp_path)
    assert again.digest == base.digest
    for name, tensor in base.model.named_parameters():
        assert torch.equal(tensor, dict(again.model.named_parameters())[name])
