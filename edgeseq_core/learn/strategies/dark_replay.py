"""Replay that also asks for what the task said of a pair when it came (DER++)."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.strategies.note import pack, unpack
from edgeseq_core.learn.strategies.plain import Plain
from edgeseq_core.learn.strategies.protocol import Student
from edgeseq_core.model.lessons import Teaching
from edgeseq_core.model.study import Reading


class DarkReplay(Plain):
    """Adds ``weight * KL(then || now)`` for each replayed pair that the buffer has a note of.

    Source: DER++ (Buzzega et al. 2020, arXiv 2004.07211, equation 6), with the divergence over the likeliest
    symbols in place of the squared distance of all logits, and one draw of the buffer for both.  While a
    task adapts to a drift, what it said at first is of the regime before.
    """

    def teaching(self, student: Student, replay: Sequence[Example]) -> Teaching | None:
        if student.adapts:
            return None
        table = student.calibration.table
        said = [unpack(e.note, len(table.encode(e.target)) + 1) if e.note else None for e in replay]
        if not any(said):
            return None
        return Teaching(said, student.config.teacher_weight)

    def notes(
        self, student: Student, reading: Reading, batch: Sequence[Example]
    ) -> dict[str, bytes]:
        if all(example.part == "reservoir" for example in batch):
            return {}
        said = zip(batch, reading.said(student.config.teacher_top), strict=True)
        return {e.key: pack(one) for e, one in said if e.part != "reservoir"}
