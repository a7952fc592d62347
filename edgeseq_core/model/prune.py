"""Structured pruning: a smaller base without its least important heads and FFN columns, or its top layers.

Matrices are shared, so a column removed from a shared FFN leaves all its users at once, and its
importance is the sum over them: ``I(u) = sum over users and tokens of |activation . gradient|``, the
first-order change of the loss if the unit were zero (Molchanov et al. 2019, arXiv 1906.10771; heads as
in Michel et al. 2019, arXiv 1905.10650).  Removing a unit equals masking it; what is left is an
`EdgeFormer` with narrower groups, which computes less.

A **unit** is a hidden column of an FFN group or a head of an attention group; heads of queries that share
one of keys and values go with it, unless all share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.model.mixture_batches import Batch
from edgeseq_core.model.objective import Objective
from edgeseq_core.model.sites import Site, key, sites
from edgeseq_core.model.trainee import Trainee

FROM_UNITS = ("o", "down")  # a unit is some of these matrices' columns, and some rows of the others
LANES = 8  # FFN widths are multiples of it, so that no vector register is part empty


def units(config: ModelConfig) -> dict[str, int]:
    """How many units every group has."""
    head = config.heads_together * config.head_width
    return {
        **{s.group: s.shapes["o"][1] // head for s in sites(config) if s.kind == "attention"},
        **{s.group: s.shapes["up"][0] for s in sites(config) if s.kind == "ffn"},
    }


def importance(
    trainee: Trainee, batches: Iterable[Batch], objective: Objective
) -> dict[str, Tensor]:
    """Importance ``[units]`` of every group, in nats a token summed over the batches' tokens."""
    found, total = units(trainee.model.config), dict[str, Tensor]()
    for batch in (one.to(trainee.device) for one in batches):
        weights = _Recorded(trainee.weights(batch.tasks))
        scores = trainee.model(batch.source, batch.target[:, :-1], weights, batch.symbols)
        objective(scores, batch).backward()  # type: ignore[no-untyped-call]
        for site, said in weights.inputs:
            assert said.grad is not None
            change = said.detach() * said.grad
            change = change.view(*change.shape[:2], found[site.group], -1).sum(-1)
            total[site.group] = total.get(site.group, 0) + change.abs().sum((0, 1))
        trainee.zero_grad(set_to_none=True)
    return total


def choose(
    importances: Mapping[str, Tensor], *, ffn_share: float, head_share: float
) -> dict[str, Tensor]:
    """Units to keep of every group when these shares of all columns and heads go, least important first.

    A group keeps one unit at least, and FFN groups a multiple of 8.

    >>> found = {"ffn0": torch.arange(16.0), "ffn1": 20 + torch.arange(16.0), "attention0": torch.ones(2)}
    >>> kept = choose(found, ffn_share=0.25, head_share=0.0)
    >>> kept["ffn0"].tolist(), len(kept["ffn1"])
    ([8, 9, 10, 11, 12, 13, 14, 15], 16)
    """
    kept: dict[str, Tensor] = {}
    for is_attention, share, lanes in ((True, head_share, 1), (False, ffn_share, LANES)):
        groups = {g: i for g, i in importances.items() if g.startswith("attention") == is_attention}
        ordered = torch.cat(list(groups.values())).sort().values
        threshold = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
        for group, of_group in groups.items():
            above = int((of_group >= threshold).sum())
            count = min(len(of_group), max(1, -(-above // lanes)) * lanes)
            kept[group] = of_group.topk(count).indices.sort().values
    return kept


def prune(model: EdgeFormer, kept: Mapping[str, Tensor]) -> EdgeFormer:
    """A new model with only the kept units ``[n]`` of every group.

    Raises ValueError for fewer heads where a head's number decides how far it sees.
    """
    smaller = EdgeFormer(_config(model.config, kept))
    whole = model.state_dict()
    cut = dict(whole)
    for site in (one for one in model.sites.values() if one.group in kept):
        for part in site.parts:
            places = _places(site, part, kept[site.group], model.config)
            for name, axis in _axes(model, site, part).items():
                if name in whole:
                    cut[name] = whole[name].index_select(axis, places)
    smaller.load_state_dict(cut)
    return smaller


def without_top_layers(model: EdgeFormer, count: int) -> EdgeFormer:
    """A new model with fewer encoder layers: in shared matrices, much time and few parameters.

    Only the top ones can go: a layer's place decides which matrices it uses.
    """
    smaller = EdgeFormer(replace(model.config, encoder_layers=model.config.encoder_layers - count))
    whole = model.state_dict()
    smaller.load_state_dict({name: whole[name] for name in smaller.state_dict()})
    return smaller


class _Recorded(BaseWeights):
    """The trainee's weights, with what every FFN and attention hands on, and its gradient."""

    def __init__(self, weights: BaseWeights) -> None:
        super().__init__(weights.model, weights.tokens, weights.vector)
        self.inputs: list[tuple[Site, Tensor]] = []

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        if part in FROM_UNITS:
            x.retain_grad()
            self.inputs.append((self.model.sites[site], x))
        return super().project(x, site, part)


def _config(config: ModelConfig, kept: Mapping[str, Tensor]) -> ModelConfig:
    def count(group: str, whole: int) -> int:
        return len(kept[group]) if group in kept else whole  # what nobody uses has no units

    each, attentions = config.heads_together, range(config.attention_groups)
    groups, layers = range(config.ffn_groups), range(config.decoder_layers)
    head = each * config.head_width
    heads = tuple(
        each * count(f"attention{group}", config.attention_width(group) // head)
        for group in attentions
    )
    ffns = (
        *(count(f"ffn{group}", config.encoder_width(group)) for group in groups),
        *(count(f"small{layer}", config.decoder_width(layer)) for layer in layers),
    )
    all_ffns = (*(config.encoder_ffn for _ in groups), *(config.decoder_ffn for _ in layers))
    return replace(
        config,
        group_heads=() if heads == tuple(config.heads for _ in attentions) else heads,
        group_ffn=() if ffns == all_ffns else ffns,
    )


def _places(site: Site, part: str, units: Tensor, config: ModelConfig) -> Tensor:
    """Places ``[n]`` of the units' numbers in a part's hidden width."""
    if site.kind == "ffn":
        return units
    width = config.head_width
    if part in "qo":
        width *= config.heads_together
    elif config.kv_heads == 1:
        units = units.new_zeros(1)  # all share the only head
    return (units[:, None] * width + torch.arange(width, device=units.device)).flatten()


def _axes(model: EdgeFormer, site: Site, part: str) -> dict[str, int]:
    """Names of all parameters that a part may have, with the dimension in which units are counted."""
    matrix, own = f"matrices.{site.group}_{part}", key(site.name, part)
    if part in FROM_UNITS:
        return {matrix: 1}
    return {
        matrix: 0,
        f"biases.{key(model.adaptation.owner(site), part)}": 0,
        f"adaptation.b.{own}": 0,
        f"adaptation.keys.{own}": 1,
        f"adaptation.values.{own}": 1,
    }
