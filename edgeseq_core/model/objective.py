"""What a base is trained to do: say the labels, or follow a teacher.

An objective takes the network's scores of every next token; log-probabilities serve as well, since a
softmax of them changes nothing.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from edgeseq_core.model.mixture_batches import Batch
from edgeseq_core.text.vocabulary import PAD


class Objective(Protocol):
    """A loss over a batch, in nats a target token."""

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        """The mean loss of scores ``[B, T, V]`` for ``batch.target[:, 1:]``."""


class Labels:
    """Cross-entropy against the labels, with some of the mass spread over all symbols."""

    def __init__(self, *, smoothing: float) -> None:
        self._smoothing = smoothing

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(
            scores.flatten(0, 1),
            batch.target[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=self._smoothing,
        )
