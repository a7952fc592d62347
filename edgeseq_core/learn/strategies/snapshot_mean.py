"""The mean of the last champions and the candidate, offered only if it does no worse (a refuse rule)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgeseq_core.learn.strategies.ema import AVERAGE, MovingAverage
from edgeseq_core.learn.strategies.protocol import Student

CHAMPIONS = "champions"  # kind: their mean
TAKEN, LATEST = "champions", "champion"  # notes: how many are in it, and the last one's id


class SnapshotMean(MovingAverage):
    """``mean = (n mean + champion) / (n + 1)`` once a champion is seen, n at most ``averaged_champions``.

    Source: SWA (Izmailov et al. 2018, arXiv 1803.05407, algorithm 1); the rule that refuses an average of
    larger held-out loss is that of greedy soups (Wortsman et al. 2022, arXiv 2203.05482, recipe 1).
    """

    follows = True
    kinds = (AVERAGE, CHAMPIONS)

    def update(self, student: Student) -> None:
        super().update(student)
        champion = student.champion
        if champion is None or champion.snapshot_id == student.notes.get(LATEST):
            return
        student.notes[LATEST] = champion.snapshot_id
        found, own = champion.beside(student.calibration), student.calibration.tensors
        if found is None or _shapes(found.tensors) != _shapes(own):
            return  # of another line, or of before it grew
        taken = int(student.notes.get(TAKEN, 0))
        mean = student.averages[CHAMPIONS]
        theirs = [found.tensors[name] for name in own]
        torch._foreach_lerp_([mean[name] for name in own], theirs, 1 / (taken + 1))
        student.notes[TAKEN] = min(taken + 1, student.config.averaged_champions - 1)

    def alternative(self, student: Student) -> dict[str, Tensor] | None:
        if not (taken := int(student.notes.get(TAKEN, 0))):
            return None
        mean, newest = student.averages[CHAMPIONS], student.averages[AVERAGE]
        return {name: mean[name].lerp(newest[name], 1 / (taken + 1)) for name in newest}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
