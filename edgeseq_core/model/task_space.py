"""Which task a source belongs to, where nobody says: the nearest one in the base's own feature space.

A source's feature is the mean of its states after the lowest encoder layers, which no calibration changes
(a probe on the demo tasks found two layers best of 0, 2, 5 and 6).  A task's place is the fading mean
and variance of the features of what it was taught; a source goes to the place under which it is
likeliest, each feature an independent normal.

Shapes: B sources, D = d_model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseq_core.engine import Inferred
from edgeseq_core.model.base import Base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.edgeformer import BaseWeights
from edgeseq_core.text.vocabulary import EOS, PAD

LAYERS = 2
MEMORY_SOURCES = 1_000  # the weight of older ones fades beyond so many
FEWEST_SOURCES = 32  # a place made of fewer is none
MARGIN = 0.1  # nats a feature by which the nearest task must beat the next
FARTHEST = 3.0  # mean squared deviation, in variances, of a source that still belongs to a task
LEAST_VARIANCE = 1e-4
SHARPNESS = 64.0  # of the probability of a task, a nat a feature


@dataclass(frozen=True)
class Place:
    """Where a task's sources lie: mean and variance ``[2, D]`` of so many of them."""

    sources: int
    moments: Tensor

    @classmethod
    def none(cls, d_model: int) -> Place:
        """Of a task that was taught nothing."""
        return cls(0, torch.zeros(2, d_model))

    def with_sources(self, features: Tensor) -> Place:
        """After some more sources ``[B, D]``, one by one."""
        (mean, variance), seen = self.moments, self.sources
        for feature in features:
            seen += 1
            weight = 1 / min(seen, MEMORY_SOURCES)
            off = feature - mean
            mean = mean + weight * off
            variance = (1 - weight) * (variance + weight * off * off)
        return Place(seen, torch.stack([mean, variance]))


@torch.no_grad()
def features(base: Base, sources: Sequence[str]) -> Tensor:
    """Where sources lie, ``[B, D]``."""
    model = base.model
    ids = pad([[*base.vocabulary.encode(source), EOS] for source in sources])
    real = ids != PAD
    bare = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    layers = range(min(LAYERS, base.config.encoder_layers))
    states = model.run_encoder(model.embed_source(ids), real, bare, layers)
    return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def nearest(found: Tensor, places: Mapping[str, Place]) -> list[Inferred]:
    """The task of each source ``[B, D]``, unless none is near, or none clearly the nearest."""
    known = {name: place for name, place in places.items() if place.sources >= FEWEST_SOURCES}
    if not known:
        return [Inferred(None)] * len(found)
    mean, variance = torch.stack([place.moments for place in known.values()]).unbind(1)
    variance = variance.clamp(min=LEAST_VARIANCE)
    off = ((found[:, None] - mean) ** 2 / variance).mean(-1)  # [B, tasks]
    ranked = (off + variance.log().mean(-1)).sort(-1)
    sure = (-SHARPNESS * ranked.values).softmax(-1)[:, 0]
    clear = F.pad(ranked.values.diff(dim=-1), (0, 1), value=torch.inf)[:, 0] >= MARGIN
    near = off.gather(-1, ranked.indices)[:, 0] <= FARTHEST
    names, out = list(known), []
    for order, confidence, is_clear, is_near in zip(
        ranked.indices.tolist(), sure.tolist(), clear.tolist(), near.tolist(), strict=True
    ):
        likeliest = [names[at] for at in order[:2]]
        if is_clear and is_near:
            out.append(Inferred(likeliest[0], confidence))
        else:
            out.append(Inferred(None, confidence, tuple(likeliest) if is_near else ()))
    return out
