"""The checks that prove an EdgeFormer: sharing, size, cache, padding, gradients of shared matrices."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.model.config import preset
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer, sites
from edgeseq_core.testing.base import tiny_base

VARIANTS: dict[str, dict[str, Any]] = {
    "bands": {"bands": (270, 330)},
    "default": {},
    "copy": {"output": "copy"},
    "adapter": {"adaptation": "adapter", "adaptation_size": 3},
    "prefix": {"adaptation": "prefix", "adaptation_size": 3},
    "one wide FFN": {"ffn_groups": 1, "encoder_ffn": 160, "decoder_ffn": 0},
    "multi-query": {"key_heads": 1},
    "grown heads": {"heads": 6, "head_size": 16, "output": "copy"},
    "post-norm": {"norm": "post-layer"},
    "linear positions": {"positions": "linear"},
    "retention": {"decoder_mixer": "retention"},
    "retention everywhere": {"encoder_mixer": "retention", "decoder_mixer": "retention"},
    "pruned": {"heads": 4, "group_heads": (2, 1, 4, 3), "group_ffn": (40, 64, 8, 16)},
    "pruned, multi-query, adapter": {
        "heads": 4,
        "key_heads": 1,
        "group_heads": (3, 1, 4, 2),
        "adaptation": "adapter",
        "adaptation_size": 3,
    },
    "pruned, grouped, prefix, copy": {
        "heads": 4,
        "key_heads": 2,
        "group_heads": (2, 4, 2, 2),
        "group_ffn": (16, 64, 8, 8),
        "adaptation": "prefix",
        "adaptation_size": 3,
        "output": "copy",
    },
    "many at once": {
        "output": "copy",
        "positions": "linear",
        "adaptation": "prefix",
        "adaptation_size": 2,
        "heads": 4,
        "key_heads": 2,
        "norm": "post-layer",
    },
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EdgeFormer:
    return tiny_base(tmp_path_factory.mktemp("base"), **VARIANTS[request.param]).model


def weights(model: EdgeFormer) -> BaseWeights:
    return BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])


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


def twin(model: EdgeFormer, **changes: Any) -> EdgeFormer:
    """A model of a changed shape, with the weights of the parameters that both have alike."""
    other = EdgeFormer(replace(model.config, **changes))
    mine = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name in mine and mine[name].shape == parameter.shape:
                parameter.copy_(mine[name])
    return other


def scores_of(model: EdgeFormer) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    source, target = (torch.randint(3, 300, (2, n), generator=draw) for n in (8, 6))
    with torch.no_grad():
        return torch.as_tensor(model(source, target, weights(model)))


def test_new_adapters_change_nothing(tmp_path: Path) -> None:
    adapted = tiny_base(tmp_path, adaptation="adapter", adaptation_size=4).model
    other_a = twin(adapted)
    with torch.no_grad():
        for a in other_a.adaptation.a.values():
            a.normal_()
    assert torch.equal(scores_of(adapted), scores_of(other_a))
    with torch.no_grad():
        other_a.adaptation.b["encoder_1_self_v"].fill_(0.1)
    assert not torch.equal(scores_of(adapted), scores_of(other_a))


def test_shared_heads_of_keys_equal_all_heads_with_the_same_keys(tmp_path: Path) -> None:
    grouped = tiny_base(tmp_path, heads=4, key_heads=2).model
    full = twin(grouped, key_heads=0)
    width = grouped.config.head_width
    parts = [(full.matrices, grouped.matrices), (full.biases, grouped.biases)]
    with torch.no_grad():
        for mine, theirs in parts:
            for name in mine:
                if name.endswith(("_k", "_v")):
                    heads = theirs[name].view(2, width, -1).repeat_interleave(2, 0)
                    mine[name].copy_(heads.reshape(mine[name].shape))
    assert torch.allclose(scores_of(full), scores_of(grouped), atol=1e-6)
    assert full.config.parameters - grouped.config.parameters == 4 * 2 * 16 * 32 + 7 * 2 * 16


@pytest.mark.parametrize("positions", ["rotary", "linear"])
def test_an_encoder_tells_a_text_from_its_mirror_image(tmp_path: Path, positions: str) -> None:
    model = tiny_base(tmp_path, positions=positions).model
    ids = torch.tensor([[80, 81, 82, 83]])
    real, w = torch.ones(1, 4, dtype=torch.bool), weights(model)
    with torch.no_grad():
        ahead, back = (
            model.run_encoder(model.embed_source(x), real, w, range(3)) for x in (ids, ids.flip(1))
        )
    assert not torch.allclose(ahead, back.flip(1), atol=1e-3)


def test_cached_steps_equal_teacher_forcing(model: EdgeFormer) -> None:
    source, target = torch.randint(3, 300, (5, 9)), torch.randint(3, 300, (5, 11))
    w = weights(model)
    with torch.no_grad():
        whole = model(source, target, w)
        memory, cache = model.encode(source, w), model.new_cache(5, 11)
        steps = [model.scores(target[:, t : t + 1], memory, w, cache) for t in range(11)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_several_tokens_after_a_cache_equal_one_after_the_other(model: EdgeFormer) -> None:
    source, target = torch.randint(3, 300, (2, 9)), torch.randint(3, 300, (2, 9))
    w = weights(model)
    with torch.no_grad():
        whole = model(source, target, w)
        memory, cache = model.encode(source, w), model.new_cache(2, 9)
        pieces = [model.scores(piece, memory, w, cache) for piece in target.split([2, 3, 1, 3], 1)]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


def test_selected_rows_go_on_as_the_rows_they_came_from(model: EdgeFormer) -> None:
    source, target = torch.randint(3, 300, (3, 7)), torch.randint(3, 300, (3, 5))
    rows, w = torch.tensor([2, 0, 2]), weights(model)
    with torch.no_grad():
        memory, cache = model.encode(source, w), model.new_cache(3, 5)
        model.scores(target[:, :4], memory, w, cache)
        cache.select(rows)
        last = model.scores(target[rows, 4:], memory.select(rows), w, cache)
        whole = model(source, target, w)[:, 4:]
    assert torch.allclose(last, whole[rows], atol=1e-5)


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
    shared = model.matrices["attention0_q"].grad
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


def test_every_tensor_is_made_where_the_weights_are(
    model: EdgeFormer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "meta" stands for a GPU: mixing it with the CPU's tensors raises as mixing CUDA's would.  A move to
    # it would make new parameters, a move to a GPU keeps them; so they are swapped.
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    moved = EdgeFormer(model.config).to("meta")
    source, target = (torch.zeros(2, n, dtype=torch.long, device="meta") for n in (7, 5))
    assert moved(source, target, weights(moved)).device.type == "meta"
    memory, cache = moved.encode(source, weights(moved)), moved.new_cache(2, 5)
    for part in target.split([1, 3, 1], 1):
        assert moved.scores(part, memory, weights(moved), cache).device.type == "meta"
