"""The reference engine: plain PyTorch, computing what the int8 snapshot says, with a KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseq_core.engine import Generation, Inferred, Limits, PairRow, Score, SourceRow
from edgeseq_core.model.answers import TEMPERATURE, generation
from edgeseq_core.model.base import Base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.calibrated_weights import GatheredWeights, MergedWeights
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.nearest import nearest
from edgeseq_core.model.search import search
from edgeseq_core.model.sites import Weights
from edgeseq_core.model.source_encoder import BatchEncoder, SourceEncoder
from edgeseq_core.model.task_space import Place, features
from edgeseq_core.text.vocabulary import BOS, EOS, PAD

FLOAT_BYTES = 4


@dataclass(frozen=True)
class _Served:
    """One immutable entry of the bank: read once a batch, replaced as a whole."""

    snapshot_id: str
    calibration: Calibration
    folded: MergedWeights  # for batches of this task alone


class TorchEngine:
    """Serves any mix of tasks in one batch; a swap replaces one dictionary entry."""

    def __init__(self, base: Base, encoder: SourceEncoder | None = None) -> None:
        self._base = base
        self._encoder = encoder or BatchEncoder(base)
        self._bank: dict[str, _Served] = {}
        self._places: dict[str, Place] = {}  # of the bank's tasks, and of unloaded ones

    @property
    def base_digest(self) -> str:
        return self._base.digest

    @property
    def max_source_tokens(self) -> int:
        return self._base.config.max_tokens - 1

    def source_tokens(self, source: str) -> int:
        return len(self._base.vocabulary.encode(source)) + 1

    def swap(self, task: str, snapshot_id: str, payload: bytes) -> None:
        calibration = self._read(payload)
        self._bank[task] = _Served(snapshot_id, calibration, MergedWeights(calibration))
        self._places[task] = calibration.place

    def _read(self, payload: bytes) -> Calibration:
        base = self._base
        return Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)

    def drop(self, task: str) -> None:
        self._bank.pop(task, None)
        self._places.pop(task, None)

    def unload(self, task: str) -> None:
        self._bank.pop(task, None)

    def know(self, task: str, payload: bytes) -> None:
        self._places[task] = self._read(payload).place
        self._bank.pop(task, None)

    def snapshot_id(self, task: str) -> str | None:
        served = self._bank.get(task)
        return served.snapshot_id if served else None

    def held_bytes(self, task: str) -> int:
        served = self._bank.get(task)
        return (
            FLOAT_BYTES * served.calibration.numbers + served.folded.held_bytes() if served else 0
        )

    def infer(self, sources: Sequence[str]) -> list[Inferred]:
        return nearest(features(self._base, sources), dict(self._places))

    @torch.inference_mode()
    def generate(self, rows: Sequence[SourceRow], limits: Limits) -> list[Generation]:
        served = [self._bank[row.task] for row in rows]
        widths = [row.n_best for row in rows]
        weights = self._weights(served)
        tables = [one.calibration.table for one in served]
        memory = self._encoder.encode([row.source for row in rows], tables, weights)
        places = [at for at, width in enumerate(widths) for _ in range(width)]  # the row of each
        if len(places) > len(rows):
            weights = self._weights([served[at] for at in places])
            memory = memory.select(torch.tensor(places))
        model = self._base.model
        bounds = replace(limits, max_tokens=min(limits.max_tokens, self._base.config.max_tokens))
        cache = model.new_cache(sum(widths), bounds.max_tokens)
        outside = _outside([(served[at].calibration, rows[at].constrained) for at in places])

        def step(token: Tensor, parents: Tensor | None) -> Tensor:
            if parents is not None:
                cache.select(parents)
            scores = log_probabilities(model.scores(token, memory, weights, cache)[:, 0])
            return scores if outside is None else scores + outside

        found = search(step, widths, bounds)
        return [
            generation(made, one.calibration.table, one.snapshot_id)
            for one, made in zip(served, found, strict=True)
        ]

    @torch.inference_mode()
    def score(self, rows: Sequence[PairRow]) -> list[Score]:
        target, scores = self._forced(rows)
        return teacher_forced(scores, target[:, 1:])

    @torch.inference_mode()
    def logits(self, row: PairRow) -> NDArray[np.float32]:
        """Teacher-forced scores ``[T, V + own]`` of a pair's next tokens, before any temperature."""
        scores: NDArray[np.float32] = self._forced([row])[1][0].numpy()
        return scores

    def _forced(self, rows: Sequence[PairRow]) -> tuple[Tensor, Tensor]:
        """Targets ``[B, 1 + T]``, BOS first, and the scores ``[B, T, V]`` of what follows each token."""
        served = [self._bank[row.task] for row in rows]
        weights = self._weights(served)
        target = pad(
            [
                [BOS, *one.calibration.table.encode(row.target), EOS]
                for one, row in zip(served, rows, strict=True)
            ]
        )
        tables = [one.calibration.table for one in served]
        memory = self._encoder.encode([row.source for row in rows], tables, weights)
        return target, self._base.model.scores(target[:, :-1], memory, weights)

    def _weights(self, served: Sequence[_Served]) -> Weights:
        """One task's folded matrices, or the rows of several tasks gathered."""
        distinct = {id(one): one for one in served}
        if len(distinct) == 1:
            return served[0].folded
        order = list(distinct)
        index = torch.tensor([order.index(id(one)) for one in served])
        calibrations = [one.calibration for one in distinct.values()]
        return GatheredWeights(self._base.model, calibrations, index)


def log_probabilities(scores: Tensor) -> Tensor:
    """Of each next token from its scores ``[..., V + own]``, as sure as the model's answers are right."""
    return (scores / TEMPERATURE).log_softmax(-1)


def _outside(places: Sequence[tuple[Calibration, bool]]) -> Tensor | None:
    """-inf for symbols outside the alphabet of each place that is constrained, else 0, ``[N, V + own]``.

    Added to log-probabilities, so that a confidence stays the model's own probability of the answer.
    """
    if not any(constrained for _, constrained in places):
        return None
    outside = torch.zeros(len(places), max(len(own.table) for own, _ in places))
    for at, (own, constrained) in enumerate(places):
        if constrained:
            outside[at] = -torch.inf
            outside[at, own.alphabet] = 0.0
    return outside


def teacher_forced(scores: Tensor, wanted: Tensor) -> list[Score]:
    """Loss and exactness per row from scores ``[B, T, V]`` and wanted tokens ``[B, T]`` (PAD ignored)."""
    each = F.cross_entropy(
        scores.flatten(0, 1), wanted.flatten(), ignore_index=PAD, reduction="none"
    )
    loss, real = each.view_as(wanted).sum(1), wanted != PAD
    exact = ((scores.argmax(-1) == wanted) | ~real).all(1)
    return [
        Score(*row) for row in zip(loss.tolist(), real.sum(1).tolist(), exact.tolist(), strict=True)
    ]
