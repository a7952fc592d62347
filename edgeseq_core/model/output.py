"""From the decoder's hidden states to scores of all symbols: of the vocabulary alone, or with a copy path.

Scores are numbers whose log-softmax is the answer's log-probabilities; those with a copy path are
log-probabilities already.

Shapes: B rows, S source tokens, T target tokens, V symbols (a task's own included), C = width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.model.batch import pad
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.layout import Layout
from edgeseq_core.model.positions import Rotary
from edgeseq_core.model.sites import COPY_SITE, Weights
from edgeseq_core.text.vocabulary import EOS, SymbolTable

# The gate's bias before training: about 5 % go through, so that a pointer that has learnt nothing spoils
# little, and still gets a gradient.  Its matrix is drawn like any other: from zeros it learnt to open less
# reliably for symbols that training had not seen (up to 25 of 200 strings of the canary in
# tests/model/test_output.py were wrong on the worst of three seeds, against 1).
GATE_START = -3.0
# Taught words of 12 characters, a pointer uses its fastest turns alone.  With the usual base 10,000 and
# heads 32 wide, two of them come back together after 19 tokens, and longer strings were copied from there:
# 0 % right at twice the length.  Turns closer to each other (base 30) come back together later, and a place
# costs more the farther it is.  Strings 2, 3, 4 and 8 times as long then came out right in 99.5, 98.5, 99
# and 98 %; by base 30 alone in 90, 81, 24 and 2; by a cost of 0.2 alone in 97, 91, 87 and 83 (one seed).
POINTER_BASE = 30.0
DISTANCE_COST = 0.5  # nats a token
LEAST = 1e-30  # a copy probability under it counts as this much, so that its logarithm is finite


@dataclass
class Copyable:
    """What can be copied of a source."""

    keys: Tensor  # [B, S, C], turned to their places
    symbols: Tensor  # [B, S], the target symbol that each source token stands for
    hidden: Tensor  # [B, 1, S], True at padding
    same: Tensor  # [B, S, S], 1 where two tokens stand for the same symbol
    first: Tensor  # [B, 1, S], 1 at the first token of each symbol

    def select(self, rows: Tensor) -> Copyable:
        """The same for ``rows [N]``, which may repeat."""
        return Copyable(*(getattr(self, field.name)[rows] for field in fields(self)))


class Output(Protocol):
    """The last part of the network."""

    def symbols(self, sources: Sequence[str], tables: Sequence[SymbolTable]) -> Tensor:
        """The target symbol ``[B, S]`` of each token of the sources, as far as this output needs it."""

    def read(self, x: Tensor, real: Tensor, symbols: Tensor, weights: Weights) -> Copyable | None:
        """What it keeps of an encoded source ``[B, S, D]``; ``real [B, S]`` is False at padding."""

    def scores(
        self,
        hidden: Tensor,
        copyable: Copyable | None,
        weights: Weights,
        start: int,
        layout: Layout,
    ) -> Tensor:
        """Scores ``[B, T, V]`` from hidden states ``[B, T, D]`` of the tokens from ``start`` on.

        Both are laid out as ``layout`` says.
        """


class VocabularyOutput:
    """Scores of the (tied) vocabulary, without a look at the source."""

    def __init__(self, _config: ModelConfig) -> None: ...

    def symbols(self, sources: Sequence[str], _tables: Sequence[SymbolTable]) -> Tensor:
        return torch.empty(len(sources), 0, dtype=torch.long)

    def read(self, _x: Tensor, _real: Tensor, _symbols: Tensor, _weights: Weights) -> None:
        return None

    def scores(
        self,
        hidden: Tensor,
        _copyable: Copyable | None,
        weights: Weights,
        _start: int,
        _layout: Layout,
    ) -> Tensor:
        return weights.logits(hidden)


class CopyOutput(nn.Module):
    """A gate between the vocabulary and a pointer into the source, ``p = (1 - g) p_vocabulary + g p_copy``.

    One more head points: its weight on a source token is that token's symbol's probability, summed
    over tokens of one symbol.  EOS of the source is copied as EOS of the target.  Query, key and gate
    are a site like any other, so a calibration may change them and starts as the identity.

    The pointer turns by rotary positions of its own and prefers near places, whatever the rest of the
    network does: one that matches content alone, or that linear biases alone guide, copies strings no
    longer than it was trained on.

    Source: pointer-generator networks (See, Liu, Manning 2017, equations 8 and 9), with a head of its
    own in place of the attention that reads the source.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = config.head_width**-0.5
        self.rotary = Rotary(config, base=POINTER_BASE)

    def symbols(self, sources: Sequence[str], tables: Sequence[SymbolTable]) -> Tensor:
        return pad(
            [[*t.of_source(s), EOS] for s, t in zip(sources, tables, strict=True)],
        )

    def read(self, x: Tensor, real: Tensor, symbols: Tensor, weights: Weights) -> Copyable:
        keys = self.rotary.turn(weights.project(x, COPY_SITE, "k")[:, None], 0)[:, 0]
        same = (symbols[:, :, None] == symbols[:, None, :]).to(x.dtype)
        first = same.tril(-1).sum(2) == 0
        return Copyable(keys, symbols, ~real[:, None], same, (first & real)[:, None].to(x.dtype))

    def scores(
        self,
        hidden: Tensor,
        copyable: Copyable | None,
        weights: Weights,
        start: int,
        layout: Layout,
    ) -> Tensor:
        assert copyable is not None
        hidden = layout.unpack(hidden)
        query = self.rotary.turn(weights.project(hidden, COPY_SITE, "q")[:, None], start)[:, 0]
        match = torch.bmm(query, copyable.keys.transpose(1, 2)) * self.scale
        match = match - DISTANCE_COST * self._distances(start, match)
        pointer = match.masked_fill(copyable.hidden, -torch.inf).softmax(-1)
        copied = torch.bmm(pointer, copyable.same)  # [B, T, S]: of each token's symbol
        gate = weights.project(hidden, COPY_SITE, "gate")
        plain = weights.logits(hidden).log_softmax(-1) + F.logsigmoid(-gate)
        # log(a + b) = log a + softplus(log b - log a), added once a symbol; all others keep log a.
        at = copyable.symbols[:, None].expand_as(copied)
        share = F.logsigmoid(gate) + copied.clamp(min=LEAST).log()
        more = F.softplus(share - plain.gather(2, at)) * copyable.first
        # Types differ in mixed precision.
        return layout.pack(plain.scatter_add(2, at, more.to(plain.dtype)))

    def _distances(self, start: int, match: Tensor) -> Tensor:
        """How far each source token is from the place of each answer token, ``[T, S]``."""
        answer, source = (torch.arange(size, device=match.device) for size in match.shape[1:])
        return (start + answer[:, None] - source).abs()
