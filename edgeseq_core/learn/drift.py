"""Drift of a task: ADWIN on the prequential loss, with a state that survives restarts."""

from __future__ import annotations

from collections.abc import Sequence

from river.drift import ADWIN

MEMORY_PAIRS = 2_000  # losses kept to rebuild the window after a restart
LOOK_PAIRS = 8  # between two looks for a cut; river's 32 costs a batch
ONSET_PAIRS = 256  # looked back on for the beginning of a drift


class DriftMonitor:
    """river's ADWIN, told apart from learning: only a rise of the mean loss is a drift.

    river's detector cannot be stored without pickle, so the losses of its window are kept, and what it
    is depends on them alone: after a cut it is made anew from what is left, as after a restart.

    >>> monitor = DriftMonitor(delta=0.002)
    >>> [ago for ago in map(monitor.update, [0.1] * 300 + [2.0] * 20) if ago]
    [12, 20]
    """

    def __init__(self, *, delta: float, losses: Sequence[float] = ()) -> None:
        self._delta = delta
        self._remake(losses)

    def _remake(self, losses: Sequence[float]) -> None:
        self.losses = list(losses)
        self._adwin = ADWIN(delta=self._delta, clock=LOOK_PAIRS)  # type: ignore[no-untyped-call]
        for loss in self.losses:
            self._adwin.update(loss)  # type: ignore[no-untyped-call]

    def update(self, loss: float) -> int:
        """Take one pair's loss (nats a token); how many pairs ago the mean rose for good, 0 if not."""
        kept = round(loss, 4)  # as it is stored
        before = self._adwin.estimation
        self._adwin.update(kept)  # type: ignore[no-untyped-call]
        self.losses.append(kept)
        if self._adwin.drift_detected:
            after = self._adwin.estimation
            ago = onset(self.losses[-ONSET_PAIRS:]) if after > before else 0
            self._remake(self.losses[-int(self._adwin.width) :])
            return ago
        if len(self.losses) > MEMORY_PAIRS:
            self._remake(self.losses[-MEMORY_PAIRS // 2 :])
        return 0

    @property
    def statistic(self) -> float:
        """Mean loss of the current window, nats a token."""
        return float(self._adwin.estimation)


def onset(losses: Sequence[float]) -> int:
    """How many of the latest losses make the likeliest rise of the mean (least squares over all cuts).

    ADWIN's own cut is cautious, and lies at a bucket's edge.

    >>> onset([0.1] * 200 + [2.0] * 24)
    24
    """
    total, before, best, found = sum(losses), 0.0, 0.0, 1
    for early in range(1, len(losses)):
        before += losses[early - 1]
        late = len(losses) - early
        rise = (total - before) / late - before / early
        if rise > 0 and rise * rise * early * late > best:
            best, found = rise * rise * early * late, late
    return found
