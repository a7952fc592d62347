"""What a strategy may decide of a task's learning, and what it may look at.

A part is chosen at construction and has no state of its own: what it must remember lies in the learner's
averages and notes, which travel in the checkpoint.  So a restart and a rebuild go on bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.optimizer import CalibrationOptimizer
from edgeseq_core.learn.progress import Progress
from edgeseq_core.learn.strategies.champion import Champion
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.lessons import Teaching
from edgeseq_core.model.study import Reading, Study
from edgeseq_core.settings import LearningSettings


class Student(Protocol):
    """The learner of one task, as its strategy sees it."""

    task: str
    config: LearningSettings
    study: Study
    progress: Progress
    calibration: Calibration
    optimizer: CalibrationOptimizer
    averages: dict[str, dict[str, Tensor]]  # kind -> tensors by name, as the calibration's
    notes: dict[str, int | str]  # what the strategy remembers beside them
    champion: Champion | None  # what serves; None where the strategy does not follow it

    @property
    def adapts(self) -> bool:
        """Whether a drift is so recent that only pairs since then are replayed."""

    def rate(self) -> float:
        """The share of the learning rate that the step in hand takes."""

    def holding(self, tensors: dict[str, Tensor]) -> Calibration:
        """The task's calibration with other numbers."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of the reservoir, of which a step that learns ``new`` replays at most ``count``."""

    pairs: Sequence[Example]  # as they were drawn: one may come twice
    new: Sequence[Example]  # none: a rehearsal
    count: int

    @property
    def distinct(self) -> list[Example]:
        """Every pair once, in the order of the draw."""
        return list({example.key: example for example in self.pairs}.values())


class ReplayRule(Protocol):
    """Which pairs of the reservoir a step replays."""

    def candidates(self, config: LearningSettings) -> int:
        """How many are drawn for each that is replayed."""

    def choose(self, student: Student, drawn: Candidates) -> list[Example]:
        """Those that the step replays."""


class Objective(Protocol):
    """What is added to the loss of a step."""

    @property
    def follows(self) -> bool:
        """Whether it looks at the champion."""

    def teaching(self, student: Student, replay: Sequence[Example]) -> Teaching | None:
        """What a teacher says of the replayed pairs."""

    def notes(
        self, student: Student, reading: Reading, batch: Sequence[Example]
    ) -> dict[str, bytes]:
        """What the buffer keeps beside new pairs of a batch, by their keys; before the gradients."""

    def pull(self, student: Student) -> None:
        """Add to the gradients that the pairs have written into the calibration."""


class Averaging(Protocol):
    """How the numbers of many steps become those that are offered to the gate."""

    @property
    def follows(self) -> bool:
        """Whether it looks at the champion."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of tensors that it averages; all begin as the calibration and grow with it."""

    @property
    def offered(self) -> str:
        """The kind that is a candidate."""

    def update(self, student: Student) -> None:
        """Take in a step of the optimizer."""

    def alternative(self, student: Student) -> dict[str, Tensor] | None:
        """What is offered instead, if it does no worse on the held-out pairs."""


@dataclass(frozen=True)
class Strategy:
    """The parts together."""

    replay: ReplayRule
    objective: Objective
    averaging: Averaging

    @property
    def follows(self) -> bool:
        """Whether a part looks at the champion."""
        return self.objective.follows or self.averaging.follows
