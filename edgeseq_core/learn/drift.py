"""Drift of a task: ADWIN on the prequential loss, with a state that survives restarts."""

from __future__ import annotations

from collections.abc import Sequence

from river.drift import ADWIN

MEMORY_PAIRS = 2_000  # losses kept to rebuild the window after a restart


class DriftMonitor:
    """river's ADWIN, told apart from learning: only a rise of the mean loss is a drift.

    river's detector cannot be stored without pickle, so the losses since its last cut are kept and fed
    again; the rebuilt window is the same as long as they are fewer than ``MEMORY_PAIRS``.

    >>> monitor = DriftMonitor(delta=0.002)
    >>> any([monitor.update(0.1) for _ in range(300)]), any([monitor.update(2.0) for _ in range(100)])
    (False, True)
    """

    def __init__(self, *, delta: float, losses: Sequence[float] = ()) -> None:
        self._delta = delta
        self._adwin = ADWIN(delta=delta)  # type: ignore[no-untyped-call]
        self.losses: list[float] = []
        for loss in losses:
            self.update(loss)

    def update(self, loss: float) -> bool:
        """Take one pair's loss (nats a token); True when the mean has risen for good."""
        before = self._adwin.estimation
        self._adwin.update(loss)  # type: ignore[no-untyped-call]
        self.losses.append(round(loss, 4))
        if self._adwin.drift_detected:
            self.losses = self.losses[-int(self._adwin.width) :]
            return bool(self._adwin.estimation > before)
        if len(self.losses) > MEMORY_PAIRS:
            self.losses = self.losses[-MEMORY_PAIRS // 2 :]
            self._adwin = ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]
            for kept in self.losses:
                self._adwin.update(kept)  # type: ignore[no-untyped-call]
        return False

    @property
    def statistic(self) -> float:
        """Mean loss of the current window, nats a token."""
        return float(self._adwin.estimation)
