"""Drift of one signal of a task: ADWIN on its mean, with a state that survives restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from river.drift import ADWIN

MEMORY_PAIRS = 2_000  # values kept to rebuild the window after a restart
LOOK_PAIRS = 8  # between two looks for a cut; river's 32 costs a batch
ONSET_PAIRS = 256  # looked back on for the beginning of a drift

Way = Literal["rise", "fall", "both"]
SIGNS: dict[Way, tuple[int, ...]] = {"rise": (1,), "fall": (-1,), "both": (1, -1)}


class DriftMonitor:
    """river's ADWIN, told apart from learning: only a change of the mean in the wrong way is a drift.

    river's detector cannot be stored without pickle, so the values of its window are kept, and what it
    is depends on them alone: after a cut it is made anew from what is left, as after a restart.

    >>> monitor = DriftMonitor(delta=0.002)
    >>> [ago for ago in map(monitor.update, [0.1] * 300 + [2.0] * 20) if ago]
    [12, 20]
    """

    def __init__(self, *, delta: float, values: Sequence[float] = (), way: Way = "rise") -> None:
        self._delta, self._signs = delta, SIGNS[way]
        self._remake(values)

    def _remake(self, values: Sequence[float]) -> None:
        self.values = list(values)
        self._adwin = ADWIN(delta=self._delta, clock=LOOK_PAIRS)  # type: ignore[no-untyped-call]
        for value in self.values:
            self._adwin.update(value)  # type: ignore[no-untyped-call]

    def update(self, value: float) -> int:
        """Take one pair's value (a loss: nats a token); how many pairs ago the mean changed, 0 if not."""
        kept = round(value, 4)  # as it is stored
        before = self._adwin.estimation
        self._adwin.update(kept)  # type: ignore[no-untyped-call]
        self.values.append(kept)
        if self._adwin.drift_detected:
            sign = 1 if self._adwin.estimation > before else -1
            latest = [sign * value for value in self.values[-ONSET_PAIRS:]]
            ago = onset(latest) if sign in self._signs else 0
            self._remake(self.values[-int(self._adwin.width) :])
            return ago
        if len(self.values) > MEMORY_PAIRS:
            self._remake(self.values[-MEMORY_PAIRS // 2 :])
        return 0

    @property
    def statistic(self) -> float:
        """Mean of the current window (of losses: nats a token)."""
        return float(self._adwin.estimation)


def onset(values: Sequence[float]) -> int:
    """How many of the latest values make the likeliest rise of the mean (least squares over all cuts).

    ADWIN's own cut is cautious, and lies at a bucket's edge.  Where nothing rises in them, all do.

    >>> onset([0.1] * 200 + [2.0] * 24)
    24
    """
    total, before, best, found = sum(values), 0.0, 0.0, len(values)
    for early in range(1, len(values)):
        before += values[early - 1]
        late = len(values) - early
        rise = (total - before) / late - before / early
        if rise > 0 and rise * rise * early * late > best:
            best, found = rise * rise * early * late, late
    return found
