"""What a learning step asks of a network: losses of pairs of one task, and gradients of its calibration.

Losses come first and gradients after, because how much each pair may pull depends on its loss.
Shapes: B pairs, T tokens of a target (EOS included), V symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from edgeseq_core.model.base import Base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.learning_weights import LearningWeights, token_losses
from edgeseq_core.model.lessons import Teaching, TopK, divergence, top_k
from edgeseq_core.model.source_encoder import SourceEncoder
from edgeseq_core.model.task_space import features
from edgeseq_core.text.vocabulary import BOS, EOS


class Reading(Protocol):
    """A batch of pairs, as the network read them."""

    losses: Tensor  # [B], label-smoothed, in nats, summed over a target's tokens
    plain: Tensor  # [B], the same without smoothing
    tokens: Tensor  # [B], of the target, EOS included
    exact: list[bool]  # whether every token is the likeliest after those before it

    def said(self, k: int) -> list[TopK]:
        """The k likeliest symbols of each pair's target tokens ``[T, k]``; before `gradients`."""

    def gradients(self, pull: Tensor, teaching: Teaching | None = None) -> None:
        """Write those of ``sum(pull * losses)``, ``pull [B]``, into the calibration's tensors; once.

        With teaching, a pair's loss holds ``weight`` times the divergence from what is said of it, too.
        """


class Study(Protocol):
    """Reads pairs with one task's calibration on a frozen base."""

    def features(self, calibration: Calibration, sources: Sequence[str]) -> Tensor:
        """Where sources that are about to be read lie in the base's feature space, ``[B, D]``."""

    def read(
        self,
        calibration: Calibration,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        smoothing: float,
    ) -> Reading:
        """Read pairs whose gradients will be wanted of ``calibration``."""

    def forget(self) -> None:
        """Keep nothing of any source."""


@dataclass
class TorchReading:
    """Losses with the graph that they came from."""

    losses: Tensor
    plain: Tensor
    tokens: Tensor
    exact: list[bool]
    scores: Tensor  # [N, V], of all tokens of all targets
    row: Tensor  # [N], the pair that a token is of

    def said(self, k: int) -> list[TopK]:
        found = top_k(self.scores.detach().log_softmax(-1), k)
        return found.split(self.tokens.int().tolist())

    def gradients(self, pull: Tensor, teaching: Teaching | None = None) -> None:
        loss = (self.losses * pull).sum()
        if teaching:
            of_pair = torch.tensor([said is not None for said in teaching.said])
            at = of_pair[self.row]
            apart = divergence(teaching.packed(), self.scores[at])
            loss = loss + teaching.weight * (apart * pull[self.row[at]]).sum()
        loss.backward()  # type: ignore[no-untyped-call]


class TorchStudy:
    """By PyTorch: any base, on any machine."""

    def __init__(self, base: Base, encoder: SourceEncoder) -> None:
        self._base, self.encoder = base, encoder

    def forget(self) -> None:
        self.encoder.forget()

    def features(self, _calibration: Calibration, sources: Sequence[str]) -> Tensor:
        return features(self._base, sources)

    def read(
        self,
        calibration: Calibration,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        smoothing: float,
    ) -> TorchReading:
        weights, table = LearningWeights(calibration), calibration.table
        target = pad([[BOS, *table.encode(text), EOS] for text in targets])
        memory = self.encoder.encode(sources, [table] * len(sources), weights)
        said = self._base.model.forced(target, memory, weights)
        losses, plain = token_losses(said.scores, said.wanted, smoothing)
        with torch.no_grad():
            wrong = (said.scores.argmax(-1) != said.wanted).to(plain.dtype)
        ones = torch.ones_like(plain)
        rows = torch.zeros(4, len(sources))
        of_pair = rows.index_add(1, said.row, torch.stack([losses, plain, ones, wrong]))
        return TorchReading(
            of_pair[0],
            of_pair[1].detach(),
            of_pair[2].detach(),
            (of_pair[3] == 0).tolist(),
            said.scores,
            said.row,
        )
