"""From source texts to the decoder's memory: in one batch, or with the frozen layers cached.

The layers below a calibration are frozen and task-agnostic, so their output for a source never
changes.  The learner and its gate read the same sources again and again; the predictor does not.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from edgeseq_core.model.base import Base
from edgeseq_core.model.edgeformer import BaseWeights, Memory
from edgeseq_core.model.front import Embedded, TextFront
from edgeseq_core.model.sites import Weights
from edgeseq_core.text.vocabulary import SymbolTable

ROWS, TOKENS = 8, 8  # of a batch through frozen layers: sources; their lengths are rounded up to it


class SourceEncoder(Protocol):
    """Turns source texts into what the decoder reads."""

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        """The memory of a batch of sources, each with its task's symbols (for the copy path)."""

    def forget(self) -> None:
        """Keep nothing of any source."""


def with_own_inputs(x: Tensor, sources: Sequence[str], weights: Weights) -> Tensor:
    """Embedded sources ``[B, S, D]`` with what their tasks add."""
    added = weights.own_inputs(sources)
    return x if added is None else x + added * math.sqrt(x.shape[-1])


class BatchEncoder:
    """All layers for all rows at once."""

    def __init__(self, base: Base) -> None:
        self._base, self._front = base, TextFront(base.model, base.vocabulary)

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        model, layers = self._base.model, range(self._base.config.encoder_layers)
        x, real = self._front.read(sources)
        x = model.run_encoder(with_own_inputs(x, sources, weights), real, weights, layers)
        return model.memorize(x, real, weights, model.output.symbols(sources, tables))

    def forget(self) -> None:
        """Nothing is kept."""


class CachingEncoder:
    """Runs the frozen layers once a source and keeps their output, ``4 * tokens * d_model`` bytes a source.

    Sources go through them in batches of a fixed shape, so that a row's bits depend on its source alone:
    learning after a restart, with an empty cache, goes on bit for bit.

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
        x, real = self._lower(sources, depth) if depth else self._front.read(sources)
        layers = range(depth, self._base.config.encoder_layers)
        model = self._base.model
        if depth == 0:  # what is kept are the base's embeddings
            x = with_own_inputs(x, sources, weights)
        read = model.run_encoder(x, real, weights, layers)
        return model.memorize(read, real, weights, model.output.symbols(sources, tables))

    def forget(self) -> None:
        self._kept.clear()

    def _lower(self, sources: Sequence[str], depth: int) -> Embedded:
        """Outputs of the lowest ``depth`` layers, kept or made."""
        distinct, kept = dict.fromkeys(sources), self._kept
        found = {s: kept.pop((s, depth)) for s in distinct if (s, depth) in kept}
        found |= self._run([s for s in distinct if s not in found], depth)
        kept.update(((source, depth), rows) for source, rows in found.items())
        while len(kept) > self._capacity:
            kept.popitem(last=False)
        frozen = [found[source] for source in sources]
        lengths = torch.tensor([len(rows) for rows in frozen])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        return Embedded(pad_sequence(frozen, batch_first=True), real)

    @torch.no_grad()
    def _run(self, sources: Sequence[str], depth: int) -> dict[str, Tensor]:
        """Outputs ``[S, D]`` of the lowest ``depth`` layers by source."""
        made, waiting = dict[str, Tensor](), defaultdict[int, list[tuple[str, Tensor]]](list)
        for source in sources:
            read = self._front.read([source]).x[0]
            waiting[-(-len(read) // TOKENS) * TOKENS].append((source, read))
        for length, group in waiting.items():
            for batch in (group[at : at + ROWS] for at in range(0, len(group), ROWS)):
                x = torch.zeros(ROWS, length, self._base.config.d_model)
                real = torch.zeros(ROWS, length, dtype=torch.bool)
                real[:, 0] = True  # in rows that stay empty, attention needs something to see
                for at, (_, read) in enumerate(batch):
                    x[at, : len(read)], real[at, : len(read)] = read, True
                rows = self._base.model.run_encoder(x, real, self._bare, range(depth))
                for at, (source, read) in enumerate(batch):
                    made[source] = rows[at, : len(read)].clone()
        return made
