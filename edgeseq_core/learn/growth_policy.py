"""When a calibration must grow: its task is not good, and reads an unknown script or gets no better.

Decided by the task's progress alone, which travels in the checkpoint, so that a restart and a rebuild
grow at the same step.  A plateau is no reason by default: on known scripts it brought nothing
(benchmarks/results/growth.md), for more memory and fewer steps.  Depth grows, rank does not: with all
layers of the shipped base, rank 8 takes 222 of a snapshot's 256 KiB before it has own rows, and rank 16
would take 375.
"""

from __future__ import annotations

from edgeseq_core.learn.progress import Progress
from edgeseq_core.settings import LearningSettings

FIRST_LOOK_PAIRS = 32  # scored; enough to tell which characters the sources hold


def need_to_grow(progress: Progress, settings: LearningSettings) -> str:
    """Why a task's calibration must grow now; empty while it need not.

    Looks every ``growth_look_pairs`` scored pairs, the first time after `FIRST_LOOK_PAIRS`, and notes in
    ``progress`` what it saw.  The first look after the start or a drift has no loss to compare with.
    """
    pairs, due = progress.scored - progress.looked, settings.growth_look_pairs
    if pairs < (due if progress.looked else min(due, FIRST_LOOK_PAIRS)):
        return ""
    before, now = progress.looked_loss, progress.prequential_loss
    progress.looked, progress.looked_loss = progress.scored, now
    if progress.prequential_exact >= settings.growth_below_exact:
        return ""
    right = f"{progress.prequential_exact:.0%} of the answers are right"
    if progress.unknown >= settings.growth_unknown_share:
        return f"{right}, and {progress.unknown:.0%} of the sources hold characters unknown to the base"
    gain = settings.growth_least_gain
    if gain and before and now > before * (1 - gain):
        return f"{right}, and {pairs} pairs have brought the loss from {before:.3f} to {now:.3f}"
    return ""


def start_over(progress: Progress) -> None:
    """After a drift: what was learnt before says nothing about a plateau."""
    progress.looked, progress.looked_loss = progress.scored, 0.0
