"""Which task a source belongs to, where nobody says: the nearest one in the base's own feature space.

A source's feature is the greatest value of each dimension over its tokens, after the lowest encoder
layers, which no calibration changes.  A task's place is the fading mean and variance of the features of
what it was taught; a source goes to the place under which it is likeliest, each dimension an independent
normal.  Dimensions depend on each other, so that likelihood is far too sure: it is taken to a power.

A probe on the six tasks of benchmarks/model/task_inference.py (seed 1) chose them: 95 % of the held-out
sources had their own place nearest, with means over tokens 91 %.  Layers 1 and 3 were no better, nor was a
whitening by random strings; one covariance of all tasks, which no snapshot can hold, gave 97 %.

Shapes: B sources, D = d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseq_core.model.base import Base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.edgeformer import BaseWeights
from edgeseq_core.model.nearest import LAYERS, LEAST_VARIANCE
from edgeseq_core.text.vocabulary import EOS, PAD

MEMORY_SOURCES = 1_000  # the weight of older ones fades beyond so many


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

    def distances(self, features: Tensor) -> list[float]:
        """How far sources ``[B, D]`` lie from it: mean squared deviation, in variances."""
        mean, variance = self.moments
        off = (features - mean) ** 2 / variance.clamp(min=LEAST_VARIANCE)
        far: list[float] = off.mean(-1).tolist()
        return far


@torch.no_grad()
def features(base: Base, sources: Sequence[str]) -> Tensor:
    """Where sources lie, ``[B, D]``."""
    model = base.model
    ids = pad([[*base.vocabulary.encode(source), EOS] for source in sources])
    real = ids != PAD
    bare = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    layers = range(min(LAYERS, base.config.encoder_layers))
    states = model.run_encoder(model.embed_source(ids), real, bare, layers)
    return states.masked_fill(~real[..., None], -torch.inf).amax(1)


def place_of(base: Base, sources: Sequence[str], *, at_once: int) -> Place:
    """Where a task lies that was taught these sources, as many as are remembered."""
    place, sources = Place.none(base.config.d_model), sources[:MEMORY_SOURCES]
    for at in range(0, len(sources), at_once):
        place = place.with_sources(features(base, sources[at : at + at_once]))
    return place
