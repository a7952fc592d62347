"""What replay rules share: the losses of candidates, and the largest of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.protocol import Student
from edgeseq_core.model.calibration import Calibration


def largest(examples: Sequence[Example], values: Tensor, count: int) -> list[Example]:
    """The ``count`` pairs of the largest values ``[B]``; one that is no number is as good as 0."""
    order = torch.nan_to_num(values).argsort(descending=True, stable=True)
    return [examples[at] for at in order[:count].tolist()]


@torch.no_grad()
def losses(student: Student, calibration: Calibration, examples: Sequence[Example]) -> Tensor:
    """The plain loss of pairs ``[B]``, in nats a token."""
    sources, targets = [e.source for e in examples], [e.target for e in examples]
    reading = student.study.read(calibration, sources, targets, smoothing=0.0)
    return reading.plain / reading.tokens
