"""The loss alone: the default."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.protocol import Student
from edgeseq_core.model.lessons import Teaching
from edgeseq_core.model.study import Reading


class Plain:
    """Adds nothing."""

    follows = False

    def teaching(self, _student: Student, _replay: Sequence[Example]) -> Teaching | None:
        return None

    def notes(
        self, _student: Student, _reading: Reading, _batch: Sequence[Example]
    ) -> dict[str, bytes]:
        return {}

    def pull(self, student: Student) -> None:
        """Nothing."""
