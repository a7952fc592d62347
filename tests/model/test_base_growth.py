"""Growth changes no output, composes, and what is new can learn at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.model.base_growth import add_encoder_layers, add_heads, widen_ffns, widen_stream
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.testing.base import tiny_base

Growth = Callable[[EdgeFormer], EdgeFormer]

GROWTHS: dict[str, Growth] = {
    "FFNs": lambda model: widen_ffns(model, encoder_ffn=100, decoder_ffn=24),
    "heads": lambda model: add_heads(model, 2 * model.config.heads),
    "layers": lambda model: add_encoder_layers(model, 5),
    "stream": lambda model: widen_stream(model, 56),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "bands": {"bands": (270,)},
    "default": {},
    "copy": {"output": "copy"},
    "grouped, linear, retention": {
        "heads": 4,
        "key_heads": 2,
        "positions": "linear",
        "decoder_mixer": "retention",
    },
    "adapters": {"adaptation": "adapter", "adaptation_size": 3},
    "prefix": {"adaptation": "prefix", "adaptation_size": 3},
}


def made(folder: Path, **shape: Any) -> EdgeFormer:
    """A base whose every number is away from its first value."""
    model = tiny_base(folder, **shape).model.requires_grad_(True)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model


def scores(model: EdgeFormer) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    source, target = (torch.randint(3, 300, (2, n), generator=draw) for n in (8, 6))
    source[1, 5:] = 0
    weights = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    return torch.as_tensor(model(source, target, weights))


def apart(a: EdgeFormer, b: EdgeFormer) -> float:
    """How far the two are, at most, in parts of the largest score."""
    with torch.no_grad():
        one, two = scores(a), scores(b)
    return float((one - two).abs().max() / one.abs().max())


def growths(variant: str) -> list[str]:
    shared_biases = VARIANTS[variant].get("adaptation") is not None
    return [name for name in GROWTHS if not (shared_biases and name == "layers")]


@pytest.mark.parametrize(("variant", "name"), [(v, g) for v in VARIANTS for g in growths(v)])
def test_a_grown_base_computes_the_same(tmp_path: Path, variant: str, name: str) -> None:
    model = made(tmp_path, **VARIANTS[variant]).double()  # float32's own noise is as large
    grown = GROWTHS[name](model)
    assert sum(p.numel() for p in grown.parameters()) == grown.config.parameters
    assert grown.config.parameters > model.config.parameters
    assert apart(model, grown) < 1e-6


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_growths_compose_in_any_order(tmp_path: Path, variant: str) -> None:
    model = made(tmp_path, **VARIANTS[variant]).double()
    names = growths(variant)
    for order in (names, names[::-1]):
        grown = model
        for name in order:
            grown = GROWTHS[name](grown)
        assert sum(p.numel() for p in grown.parameters()) == grown.config.parameters
        assert apart(model, grown) < 1e-6


def test_what_is_new_learns_at_once(tmp_path: Path) -> None:
    def gradient(grown: EdgeFormer, name: str) -> torch.Tensor:
        scores(grown).square().mean().backward()
        found = dict(grown.named_parameters())[name].grad
        assert found is not None
        return found

    model = made(tmp_path)
    d, hidden = model.config.d_model, model.config.encoder_ffn
    assert gradient(GROWTHS["FFNs"](model), "matrices.ffn0_down")[:, hidden:].abs().min() > 0
    assert gradient(GROWTHS["heads"](model), "matrices.attention0_o")[:, d:].abs().max() > 0
    assert gradient(GROWTHS["stream"](model), "matrices.attention0_o")[d:].abs().max() > 0
    for part in ("self", "ffn"):
        assert gradient(GROWTHS["layers"](model), f"norms.encoder_4_{part}_norm").abs().min() > 0


def test_a_new_layer_shares_the_matrices_of_its_place_in_the_cycle(tmp_path: Path) -> None:
    grown = add_encoder_layers(made(tmp_path), 6)
    assert grown.matrix("encoder.5.self", "q") is grown.matrix("encoder.1.self", "q")
    assert grown.matrix("encoder.5.ffn", "up") is grown.matrix("encoder.1.ffn", "up")


@pytest.mark.parametrize(
    ("shape", "growth", "message"),
    [
        ({}, lambda model: widen_ffns(model, encoder_ffn=8), "only grow"),
        ({}, lambda model: add_encoder_layers(model, 2), "only grow"),
        ({}, lambda model: widen_stream(model, 16), "only grow"),
        ({"heads": 4, "key_heads": 1}, lambda model: add_heads(model, 6), "proportion"),
        ({"norm": "post-layer"}, GROWTHS["layers"], "pre-norm"),
        ({"norm": "post-layer"}, GROWTHS["stream"], "post-norm"),
        ({"adaptation": "adapter", "adaptation_size": 2}, GROWTHS["layers"], "biases"),
        ({"decoder_ffn": 0}, GROWTHS["FFNs"], "no decoder FFN"),
    ],
)
def test_what_cannot_grow_is_refused(
    tmp_path: Path, shape: dict[str, Any], growth: Growth, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        growth(made(tmp_path, **shape))
