"""Drift of a task: ADWIN on the prequential loss, with a state that survives restarts."""

from __future__ import annotations

from collections.abc import Sequence

from river.drift import ADWIN

MEMORY_PAIRS = 2_000  # losses kept to rebuild the window after a restart


class DriftMonitor:
    """river's ADWIN, told apart from learning: only a rise of the mean loss is a drift.

    river's detector cannot be stored without pickle, so the losses of its window are kept, and what it
    is depends on them alone: after a cut it is made anew from what is left, as after a restart.

    >>> monitor = DriftMonitor(delta=0.002)
    >>> any([monitor.update(0.1) for _ in range(300)]), any([monitor.update(2.0) for _ in range(100)])
    (False, True)
    """

    def __init__(self, *, delta: float, losses: Sequence[float] = ()) -> None:
        self._delta = delta
        self._remake(losses)

    def _remake(self, losses: Sequence[float]) -> None:
        self.losses = list(losses)
        self._adwin = ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]
        for loss in self.losses:
            self._adwin.update(loss)  # type: ignore[no-untyped-call]

    def update(self, loss: float) -> bool:
        """Take one pair's loss (nats a token); True when the mean has risen for good."""
        kept = round(loss, 4)  # as it is stored
        before = self._adwin.estimation
        self._adwin.update(kept)  # type: ignore[no-untyped-call]
        self.losses.append(kept)
        if self._adwin.drift_detected:
            after = self._adwin.estimation
            self._remake(self.losses[-int(self._adwin.width) :])
            return bool(after > before)
        if len(self.losses) > MEMORY_PAIRS:
            self._remake(self.losses[-MEMORY_PAIRS // 2 :])
        return False

    @property
    def statistic(self) -> float:
        """Mean loss of the current window, nats a token."""
        return float(self._adwin.estimation)
