"""The task whose place a source's features are in (`edgeseq_core.model.task_space`), on plain arrays.

Shapes: B sources, N tasks, D = d_model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from edgeseq_core.engine import Inferred

LAYERS = 2
FEWEST_SOURCES = 32  # a place made of fewer is none
FARTHEST = 1.8  # mean squared deviation, in variances; 1 to 2 % of a task's own are farther
LEAST_CONFIDENCE = 0.8  # below it, no task is clearly the nearest
SHARPNESS = 10.0  # of the confidence, a nat a dimension
LEAST_VARIANCE = 1e-4
FEATURES = "max-2"  # names what a place is made of: one of other features is none


class Placed(Protocol):
    """Mean and variance ``[2, D]`` of the features of so many sources."""

    @property
    def sources(self) -> int: ...
    @property
    def moments(self) -> ArrayLike: ...


def nearest(features: ArrayLike, places: Mapping[str, Placed]) -> list[Inferred]:
    """The task of each source ``[B, D]``, unless none is near, or none clearly the nearest."""
    found = np.asarray(features, np.float32)
    known = {name: place for name, place in places.items() if place.sources >= FEWEST_SOURCES}
    if not known:
        return [Inferred(None)] * len(found)
    moments = np.stack([np.asarray(place.moments, np.float32) for place in known.values()])
    mean, variance = moments[:, 0], np.maximum(moments[:, 1], LEAST_VARIANCE)
    off = ((found[:, None] - mean) ** 2 / variance).mean(-1)  # [B, N]
    distance = off + np.log(variance).mean(-1)
    order = distance.argsort(-1, kind="stable")
    closeness = np.exp(-SHARPNESS * (distance - distance.min(-1, keepdims=True)))
    sure = closeness.max(-1) / closeness.sum(-1)
    names, out = list(known), []
    for row, confidence in enumerate(sure.tolist()):
        likeliest = tuple(names[at] for at in order[row, :2])
        if off[row, order[row, 0]] > FARTHEST:
            out.append(Inferred(None, confidence))
        elif confidence < LEAST_CONFIDENCE:
            out.append(Inferred(None, confidence, likeliest))
        else:
            out.append(Inferred(likeliest[0], confidence))
    return out
