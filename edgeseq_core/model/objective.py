"""What a base is trained to do: say the targets, or follow a teacher as well.

An objective takes the network's scores of every next token; log-probabilities serve as well, since a
softmax of them changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from edgeseq_core.model.lessons import Lessons, divergence, pad_top_k
from edgeseq_core.model.mixture_batches import Batch
from edgeseq_core.text.vocabulary import PAD


class Objective(Protocol):
    """A loss over a batch, in nats a target token."""

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """The mean loss of scores ``[B, T, V]`` for ``batch.target[:, 1:]``."""


class Labels:
    """Cross-entropy against the targets, with some of the mass spread over all symbols."""

    def __init__(self, *, smoothing: float) -> None:
        self._smoothing = smoothing

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(
            scores.flatten(0, 1),
            batch.target[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=self._smoothing,
        )


class Distillation:
    """Cross-entropy against the targets and the divergence from what a teacher said of the same tokens.

    ``L = (1 - share) CE + share t^2 KL(teacher || student)`` at temperature t, the mean over target
    tokens (Hinton et al. 2015, arXiv 1503.02531; word-level: Kim and Rush 2016, arXiv 1606.07947).  When
    the targets are the teacher's own answers, the cross-entropy is their sequence-level distillation.
    """

    def __init__(self, lessons: Sequence[Lessons], *, smoothing: float, share: float) -> None:
        self._lessons, self._share = lessons, share  # one of each task, in the order of its index
        self._targets = Labels(smoothing=smoothing)

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        said = pad_top_k([self._lessons[task].of(place) for task, place in batch.drawn])
        temperature = self._lessons[0].temperature
        of_token = divergence(said.to(scores.device), scores, temperature=temperature)
        follow = of_token[batch.target[:, 1:] != PAD].mean() * temperature**2
        return (1 - self._share) * self._targets(scores, batch) + self._share * follow
