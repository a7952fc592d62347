"""From source texts to the decoder's memory: in one batch, or with the frozen layers cached.

The layers below a calibration are frozen and task-agnostic, so their output for a source never
changes.  The learner and its gate read the same sources again and again; the predictor does not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from edgeseq_core.model.base import Base
from edgeseq_core.model.edgeformer import BaseWeights, Memory
from edgeseq_core.model.front import TextFront
from edgeseq_core.model.sites import Weights
from edgeseq_core.text.vocabulary import SymbolTable


class SourceEncoder(Protocol):
    """Turns source texts into what the decoder reads."""

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        """The memory of a batch of sources, each with its task's symbols (for the copy path)."""


class BatchEncoder:
    """All layers for all rows at once."""

    def __init__(self, base: Base) -> None:
        self._base, self._front = base, TextFront(base.model, base.vocabulary)

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        model, layers = self._base.model, range(self._base.config.encoder_layers)
        x, real = self._front.read(sources)
        x = model.run_encoder(x, real, weights, layers)
        return model.memorize(x, real, weights, model.output.symbols(sources, tables))


class CachingEncoder:
    """Runs the frozen layers once a source, one source at a time, and keeps their output.

    One at a time, so that a row's bits depend on its source alone: learning after a restart, with an
    empty cache, goes on bit for bit.  About ``4 * tokens * d_model`` bytes a source.

    ``calibrated_layers`` are run on what is kept, or as many as the weights change, if that is more.
    """

    def __init__(self, base: Base, *, calibrated_layers: int, capacity: int = 4_096) -> None:
        self._base, self._capacity = base, capacity
        self._front = TextFront(base.model, base.vocabulary)
        self._frozen = base.config.encoder_layers - calibrated_layers
        model = base.model
        self._bare = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
        self._kept: OrderedDict[tuple[str, int], Tensor] = OrderedDict()

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        depth = min(self._frozen, weights.frozen_layers)
        frozen = [self._lower(source, depth) for source in sources]
        longest = max(rows.shape[0] for rows in frozen)
        x = torch.zeros(len(frozen), longest, self._base.config.d_model)
        real = torch.zeros(len(frozen), longest, dtype=torch.bool)
        for at, rows in enumerate(frozen):
            x[at, : rows.shape[0]] = rows
            real[at, : rows.shape[0]] = True
        layers = range(depth, self._base.config.encoder_layers)
        model = self._base.model
        read = model.run_encoder(x, real, weights, layers)
        return model.memorize(read, real, weights, model.output.symbols(sources, tables))

    def forget(self) -> None:
        """Keep nothing of any source."""
        self._kept.clear()

    @torch.no_grad()
    def _lower(self, source: str, depth: int) -> Tensor:
        """Output ``[S, D]`` of the lowest ``depth`` layers for one source."""
        kept = self._kept.get((source, depth))
        if kept is not None:
            self._kept.move_to_end((source, depth))
            return kept
        x, real = self._front.read([source])
        made = self._base.model.run_encoder(x, real, self._bare, range(depth))[0]
        self._kept[source, depth] = made
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return made
