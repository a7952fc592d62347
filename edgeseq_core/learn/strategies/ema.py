"""A moving average of the last few steps is offered: the default."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseq_core.learn.strategies.protocol import Student

AVERAGE = "average"


class MovingAverage:
    """``average = past * average + (1 - past) * theta`` after each step (Polyak and Juditsky 1992)."""

    follows = False
    kinds: tuple[str, ...] = (AVERAGE,)
    offered = AVERAGE

    def update(self, student: Student) -> None:
        lerp(student, AVERAGE, student.config.averaging)

    def alternative(self, _student: Student) -> dict[str, Tensor] | None:
        return None


def lerp(student: Student, kind: str, most: float) -> None:
    """Move an average to where the calibration is; ``most``: weight of the past, once there is one."""
    taken = student.optimizer.count - 1  # goes on after a drift: a single step is noisy
    past = min(most, taken / (taken + 5))
    own, average = student.calibration.tensors, student.averages[kind]
    averages = [average[name] for name in own]
    torch._foreach_lerp_(averages, [leaf.detach() for leaf in own.values()], 1 - past)
