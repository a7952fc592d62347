"""Embeddings in bands: frequent tokens are as wide as the model, rarer ones ever narrower.

Tokens are numbered by falling frequency and cut into bands.  The first is a plain table; each later one,
a **tail**, is a table of narrow rows and one matrix that widens them.  The same rows score the tokens, and
a token of a tail is as likely as its tail times its share in it.

Source: adaptive input representations (Baevski and Auli 2019, section 3, tied) and adaptive softmax (Grave
et al. 2017, section 3).

Shapes: B rows, T tokens, V symbols (a task's own included), F of the first band, N tails, D = d_model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.layout import Layout
from edgeseq_core.model.output import Copyable, VocabularyOutput
from edgeseq_core.model.sites import BANDS_SITE, Weights


def new_tails(config: ModelConfig) -> nn.ParameterDict:
    """Rows ``[size, width]`` and widening matrix ``[D, width]`` of each tail; none without bands."""
    tails = nn.ParameterDict()
    for at, (size, width) in enumerate(config.tails):
        tails[f"{at}_rows"] = nn.Parameter(torch.randn(size, width) * width**-0.5)
        tails[f"{at}_out"] = nn.Parameter(torch.randn(config.d_model, width) * config.d_model**-0.5)
    return tails


class Embedding:
    """Looks tokens up in a first band ``[F, D]`` and tails, and scores them; without tails, a plain table."""

    def __init__(self, first: Tensor, tails: nn.ParameterDict) -> None:
        self.first = first
        self.tails = [(tails[f"{at}_rows"], tails[f"{at}_out"]) for at in range(len(tails) // 2)]

    def table(self) -> Tensor:
        """All tokens' embeddings ``[V, D]``."""
        if not self.tails:
            return self.first
        return torch.cat([self.first, *(F.linear(rows, out) for rows, out in self.tails)])

    def look_up(self, ids: Tensor) -> Tensor:
        """Embeddings ``[B, T, D]`` of tokens ``[B, T]``, unscaled."""
        if not self.tails:
            return F.embedding(ids, self.first)
        start = len(self.first)
        found = F.embedding(ids.clamp(max=start - 1), self.first)
        for rows, out in self.tails:
            at = (ids - start).clamp(0, len(rows) - 1)
            wide = F.linear(F.embedding(at, rows), out)
            found = torch.where((ids >= start)[..., None], wide, found)
            start += len(rows)
        return found

    def score(self, hidden: Tensor) -> Tensor:
        """Products ``[B, T, V]`` of hidden states ``[B, T, D]`` with every embedding."""
        head = F.linear(hidden, self.first)
        if not self.tails:
            return head
        return torch.cat([head, *(F.linear(hidden @ out, rows) for rows, out in self.tails)], -1)


class BandedOutput(VocabularyOutput):
    """Log-probabilities by bands: first band, tails and a task's own symbols share one softmax."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._first, self._known = config.first_band, config.vocabulary_size
        self._rare = [size for size, _ in config.tails]

    def scores(
        self,
        hidden: Tensor,
        _copyable: Copyable | None,
        weights: Weights,
        _start: int,
        _layout: Layout,
    ) -> Tensor:
        plain = weights.logits(hidden)
        rare = torch.split(plain[..., self._first : self._known], self._rare, -1)
        own = plain[..., self._known :]
        tails = weights.project(hidden, BANDS_SITE, "tails")
        head = torch.cat([plain[..., : self._first], tails, own], -1).log_softmax(-1)
        reach = self._first + len(rare)
        parts = [head[..., : self._first]]
        for at, band in enumerate(rare, self._first):
            parts.append(band.log_softmax(-1) + head[..., at : at + 1])
        return torch.cat([*parts, head[..., reach:]], -1)
