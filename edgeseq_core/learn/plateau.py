"""Whether a task still gets better: looks in a row at which its loss had not fallen below the least before.

It decides nothing for the task itself (`growth_policy` does); a consolidation that starts by itself asks.
"""

from __future__ import annotations

from edgeseq_core.learn.progress import Progress

LOOK_PAIRS = 200  # scored between two looks: twice the memory of the fading loss
LEAST_GAIN = 0.05  # of the loss; the fading mean of a still task moves by about as much


def look(progress: Progress) -> None:
    """Note one look, when it is due.

    >>> progress = Progress()
    >>> for loss in (1.0, 0.5, 0.49, 0.51, 0.5):
    ...     progress.scored, progress.prequential_loss = progress.scored + LOOK_PAIRS, loss
    ...     look(progress)
    >>> progress.flat_looks
    3
    """
    if progress.scored - progress.flat_scored < LOOK_PAIRS:
        return
    progress.flat_scored = progress.scored
    if progress.flat_loss and progress.prequential_loss > progress.flat_loss * (1 - LEAST_GAIN):
        progress.flat_looks += 1
    else:
        progress.flat_loss, progress.flat_looks = progress.prequential_loss, 0


def start_over(progress: Progress) -> None:
    """After a drift, or on another base: what the loss was before says nothing."""
    progress.flat_scored, progress.flat_loss, progress.flat_looks = progress.scored, 0.0, 0
