"""What is watched of a task beside its loss: sure answers, targets and, without labels, its input.

These only report.  The loss alone makes a task adapt: a changed input whose answers are still right needs no
adapting, and where they are not, the loss says so first (benchmarks/results/signals.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeseq_core.engine import Score
from edgeseq_core.learn.drift import DriftMonitor, Way
from edgeseq_core.learn.example import Example
from edgeseq_core.text.vocabulary import Vocabulary

LOSS = "loss"  # the signal that acts, as it is called beside the others
INPUTS: Mapping[str, Way] = {
    "source_length": "both",  # characters
    "unknown_characters": "rise",  # share of a source's, unknown to the base
    "distance": "rise",  # of a source's features from the task's place, squared, in variances
}
WATCHED: Mapping[str, Way] = {
    "confidence": "fall",  # probability of the right answer
    "target_length": "both",  # tokens
    **INPUTS,
}
UNIT = 1e-4  # of stored values: what a monitor rounds to


def observed(
    example: Example, score: Score, distance: float | None, vocabulary: Vocabulary
) -> dict[str, float]:
    """A pair's value of each signal; no ``distance`` while a task has no place yet."""
    source = example.source
    values = {
        "confidence": math.exp(-score.loss),
        "target_length": float(score.tokens),
        "source_length": float(len(source)),
        "unknown_characters": sum(c not in vocabulary for c in source) / max(1, len(source)),
    }
    return values if distance is None else values | {"distance": distance}


class Signals:
    """A monitor a signal, and how long ago each changed last.

    >>> signals = Signals(delta=0.002)
    >>> [signals.update({"source_length": n}) for n in [5.0] * 300 + [9.0] * 24][-1], signals.since
    ({}, {'source_length': 24})
    """

    def __init__(self, *, delta: float) -> None:
        self._delta = delta
        self._monitors = {name: DriftMonitor(delta=delta, way=way) for name, way in WATCHED.items()}
        self.since: dict[str, int] = {}  # signal -> pairs scored since its last change began

    def update(self, values: Mapping[str, float]) -> dict[str, int]:
        """Take one pair's values; signals that have changed newly, and how many pairs ago that began.

        A detector shows one change several times; the same one is not new.
        """
        found = {}
        self.since = {name: since + 1 for name, since in self.since.items()}
        for name, value in values.items():
            if not math.isfinite(value) or not (ago := self._monitors[name].update(value)):
                continue
            if name not in self.since or 2 * ago <= self.since[name]:
                found[name] = ago
            self.since[name] = ago
        return found

    @property
    def statistics(self) -> dict[str, float]:
        """Mean of each signal's window."""
        return {name: monitor.statistic for name, monitor in self._monitors.items()}

    def to_state(self) -> tuple[dict[str, dict[str, int]], NDArray[np.int32]]:
        """What a checkpoint keeps: how many values of each, since when it has changed; and the values."""
        monitors = dict(sorted(self._monitors.items()))
        values = [value for monitor in monitors.values() for value in monitor.values]
        counts = {name: len(monitor.values) for name, monitor in monitors.items()}
        packed = np.rint(np.array(values, np.float64) / UNIT).astype(np.int32)
        return {"counts": counts, "since": self.since}, packed

    def restore(self, kept: Mapping[str, Mapping[str, int]], values: NDArray[np.int32]) -> None:
        """Go on from what `to_state` gave; a signal that is not watched any more is let go."""
        at = 0
        for name, count in sorted(kept["counts"].items()):
            if way := WATCHED.get(name):
                mine = [round(unit * UNIT, 4) for unit in values[at : at + count].tolist()]
                self._monitors[name] = DriftMonitor(delta=self._delta, values=mine, way=way)
            at += count
        self.since = {name: n for name, n in kept["since"].items() if name in WATCHED}
