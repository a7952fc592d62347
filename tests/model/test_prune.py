"""A pruned base equals the masked one, is smaller as its formula says, and lost what mattered least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.base_growth import add_heads, widen_ffns, widen_stream
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.config import preset
from edgeseq_core.model.edgeformer import BaseWeights
from edgeseq_core.model.mixture_batches import Batch
from edgeseq_core.model.objective import Labels
from edgeseq_core.model.prune import choose, importance, prune, units, without_top_layers
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary("abcdefgh")


def made(**shape: Any) -> Trainee:
    torch.manual_seed(0)
    config = preset("128", vocabulary_size=len(VOCABULARY), **shape)
    trainee = Trainee.new(config, ["t"], VOCABULARY)
    with torch.no_grad():  # biases and vectors that a training run would have moved
        for parameter in trainee.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return trainee


@pytest.fixture
def trainee() -> Trainee:
    return made()


def batch(seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    source = torch.randint(3, len(VOCABULARY), (4, 9), generator=draw)
    target = torch.randint(3, len(VOCABULARY), (4, 7), generator=draw)
    return Batch(source, source, target, torch.zeros(4, dtype=torch.long), [(0, 0)] * 4)


class Masked(BaseWeights):
    """A base of which only the kept units speak."""

    def __init__(self, weights: BaseWeights, kept: dict[str, Tensor]) -> None:
        super().__init__(weights.model, weights.tokens, weights.vector)
        self.kept, self.units = kept, units(weights.model.config)

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        if part in ("o", "down"):
            one = self.model.sites[site]
            speak = torch.zeros(x.shape[-1])
            speak.view(self.units[one.group], -1)[self.kept[one.group]] = 1
            x = x * speak
        return super().project(x, site, part)


VARIANTS: dict[str, dict[str, Any]] = {
    "bands": {"bands": (265,)},
    "default": {},
    "copy": {"output": "copy"},
    "adapter": {"adaptation": "adapter", "adaptation_size": 3},
    "prefix, grouped": {"adaptation": "prefix", "adaptation_size": 3, "key_heads": 2},
    "multi-query": {"key_heads": 1, "adaptation": "adapter", "adaptation_size": 2},
    "wide heads, copy": {"head_size": 48, "output": "copy"},
    "post-norm, no decoder FFN": {"norm": "post-layer", "decoder_ffn": 0},
    "more groups than layers": {"attention_groups": 9, "ffn_groups": 7},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pruning_equals_masking_and_the_formula_still_counts(variant: str) -> None:
    trainee, one = made(**VARIANTS[variant]), batch(2)
    found = importance(trainee, [batch()], Labels(smoothing=0.0))
    kept = choose(found, ffn_share=0.5, head_share=0.25)
    model, smaller = trainee.model, prune(trainee.model, kept)
    weights = trainee.weights(one.tasks)
    with torch.no_grad():
        masked = model(one.source, one.target, Masked(weights, kept))
        whole = model(one.source, one.target, weights)
        pruned = smaller(
            one.source, one.target, BaseWeights(smaller, weights.tokens, weights.vector)
        )
    assert torch.allclose(pruned, masked, atol=1e-5)
    assert not torch.allclose(pruned, whole, atol=1e-2)
    config = smaller.config
    assert sum(p.numel() for p in smaller.parameters()) == config.parameters
    assert config.parameters < model.config.parameters
    for kind, share, within in (("attention", 0.25, 1), (("ffn", "small"), 0.5, 32)):
        had, has = (
            sum(count for group, count in units(c).items() if group.startswith(kind))
            for c in (model.config, config)
        )
        assert has == pytest.approx((1 - share) * had, abs=within)


class Silent(BaseWeights):
    """A base whose two top encoder layers add nothing."""

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        said = super().project(x, site, part)
        top = site.startswith(("encoder.4.", "encoder.5."))
        return 0 * said if top and part in ("o", "down") else said


@pytest.mark.parametrize("kept", [1, 4])
def test_a_model_without_layers_is_as_small_as_its_formula(trainee: Trainee, kept: int) -> None:
    smaller = without_top_layers(trainee.model, 6 - kept)
    assert smaller.config.encoder_layers == kept
    assert sum(p.numel() for p in smaller.parameters()) == smaller.config.parameters


def test_without_its_top_layers_a_model_is_what_the_others_make(trainee: Trainee) -> None:
    smaller, one = without_top_layers(trainee.model, 2), batch()
    weights = trainee.weights(one.tasks)
    silent = Silent(weights.model, weights.tokens, weights.vector)
    asked = one.source, one.target[:, :-1]
    said = smaller(*asked, BaseWeights(smaller, weights.tokens, weights.vector), one.symbols)
    assert torch.allclose(said, trainee.model(*asked, silent, one.symbols), atol=1e-5)
    assert not torch.allclose(said, trainee.model(*asked, weights, one.symbols), atol=1e-2)


def test_matrices_of_a_pruned_model_are_shared(trainee: Trainee) -> None:
    found = importance(trainee, [batch()], Labels(smoothing=0.0))
    smaller = prune(trainee.model, choose(found, ffn_share=0.5, head_share=0.25))
    assert smaller.matrix("encoder.0.ffn", "up") is smaller.matrix("encoder.4.ffn", "up")


@pytest.mark.parametrize(
    "shape",
    [{"positions": "linear"}, {"encoder_mixer": "retention"}, {"decoder_mixer": "retention"}],
)
def test_where_a_head_is_told_by_its_number_ffns_alone_are_pruned(shape: dict[str, Any]) -> None:
    trainee = made(**shape)
    found = importance(trainee, [batch()], Labels(smoothing=0.0))
    smaller = prune(trainee.model, choose(found, ffn_share=0.5, head_share=0.0))
    assert smaller.config.parameters < trainee.model.config.parameters
    with pytest.raises(ValueError, match="number decides"):
        prune(trainee.model, choose(found, ffn_share=0.5, head_share=0.25))


def test_a_pruned_model_can_be_pruned_again_and_grown(trainee: Trainee) -> None:
    labels = Labels(smoothing=0.0)
    once = prune(
        trainee.model, choose(importance(trainee, [batch()], labels), ffn_share=0.5, head_share=0.2)
    )
    again = Trainee(once, trainee.starts, trainee.names, VOCABULARY)
    kept = choose(importance(again, [batch()], labels), ffn_share=0.3, head_share=0.2)
    twice = prune(once, kept)
    assert twice.config.parameters < once.config.parameters
    grown = widen_stream(add_heads(widen_ffns(twice, decoder_ffn=72), 6), 160)
    assert grown.config.parameters > twice.config.parameters
    one = batch(5)
    with torch.no_grad():
        a, b = (
            m(
                one.source,
                one.target,
                BaseWeights(m, m.task_tokens[None], m.task_vector[None, None]),
            )
            for m in (twice, grown)
        )
    assert torch.allclose(a, b, atol=1e-4)


def test_cached_steps_of_a_pruned_model_equal_teacher_forcing(trainee: Trainee) -> None:
    kept = choose(
        importance(trainee, [batch()], Labels(smoothing=0.0)), ffn_share=0.3, head_share=0.5
    )
    model, one = prune(trainee.model, kept), batch(3)
    w = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    with torch.no_grad():
        whole = model(one.source, one.target, w)
        memory, cache = model.encode(one.source, w), model.new_cache(4, 7)
        steps = [model.scores(one.target[:, t : t + 1], memory, w, cache) for t in range(7)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_importance_is_the_first_order_change_of_the_loss_over_all_users(trainee: Trainee) -> None:
    one, objective = batch(), Labels(smoothing=0.0)
    found = importance(trainee, [one], objective)
    group, unit = "ffn1", int(found["ffn1"].argmax())

    class Scaled(BaseWeights):
        """One column of the group, in all its users, by a little more."""

        def project(self, x: Tensor, site: str, part: str) -> Tensor:
            if part == "down" and self.model.sites[site].group == group:
                factor = torch.ones(x.shape[-1])
                factor[unit] = 1.01
                x = x * factor
            return super().project(x, site, part)

    plain = trainee.weights(one.tasks)

    def loss(weights: BaseWeights) -> float:
        with torch.no_grad():
            return float(objective(trainee.model(one.source, one.target[:, :-1], weights), one))

    changed = loss(Scaled(plain.model, plain.tokens, plain.vector)) - loss(plain)
    # Terms of tokens and users may cancel in the loss; their absolute values are its upper bound.
    assert 0 < abs(changed) / 0.01 <= 1.05 * float(found[group][unit])
    assert trainee.model.matrix("encoder.1.ffn", "up").grad is None


def test_a_silent_unit_goes_first(trainee: Trainee) -> None:
    with torch.no_grad():
        trainee.model.matrix("encoder.1.ffn", "down")[:, 5] = 0
        trainee.model.matrix("encoder.2.self", "o")[:, 32:64] = 0  # head 1 of group 2
    found = importance(trainee, [batch()], Labels(smoothing=0.0))
    assert found["ffn1"][5] == 0
    assert found["attention2"][1] == 0
    kept = choose(found, ffn_share=0.0, head_share=1 / 16)
    assert {group: len(k) for group, k in kept.items() if group.startswith("att")} == {
        "attention0": 4,
        "attention1": 4,
        "attention2": 3,
        "attention3": 4,
    }


def test_a_share_of_nothing_keeps_everything(trainee: Trainee) -> None:
    found = importance(trainee, [batch()], Labels(smoothing=0.0))
    same = prune(trainee.model, choose(found, ffn_share=0.0, head_share=0.0))
    for name, tensor in trainee.model.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor)


def test_a_pruned_base_is_a_base(trainee: Trainee, tmp_path: Path) -> None:
    found = importance(trainee, [batch()], Labels(smoothing=0.0))
    smaller = prune(trainee.model, choose(found, ffn_share=0.5, head_share=0.3))
    file = tmp_path / "base.safetensors"
    tensors = {name: p.detach().numpy() for name, p in smaller.named_parameters()}
    write_base(file, tensors, config=smaller.config, vocabulary=VOCABULARY, notes={})
    base = Base.load(file)
    assert base.config == smaller.config
    calibration = Calibration(base.model, VOCABULARY, CalibrationConfig(), seed=1)
    payload = calibration.to_payload(base.digest)
    again = Calibration.from_payload(payload, base.model, VOCABULARY, base.digest)
    one = batch(4)
    bare = BaseWeights(base.model, base.model.task_tokens[None], base.model.task_vector[None, None])
    with torch.no_grad():
        assert torch.equal(
            base.model(one.source, one.target, MergedWeights(calibration)),
            base.model(one.source, one.target, bare),
        )
        assert base.model(one.source, one.target, MergedWeights(again)).isfinite().all()
