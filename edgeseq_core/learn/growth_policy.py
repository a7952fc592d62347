"""When a calibration must grow: its task is not good yet and has stopped getting better.

Decided by the task's progress alone, which travels in the checkpoint, so that a restart and a rebuild
grow at the same step.
"""

from __future__ import annotations

from edgeseq_core.learn.progress import Progress
from edgeseq_core.settings import LearningSettings


def need_to_grow(progress: Progress, settings: LearningSettings) -> str:
    """Why a task's calibration must grow now; empty while it need not.

    Looks every ``growth_look_pairs`` scored pairs, and notes in ``progress`` what it saw.  The first look
    after the start or a drift has nothing to compare with.
    """
    pairs = progress.scored - progress.looked
    if pairs < settings.growth_look_pairs:
        return ""
    before, now = progress.looked_loss, progress.prequential_loss
    progress.looked, progress.looked_loss = progress.scored, now
    if progress.prequential_exact >= settings.growth_below_exact or not before:
        return ""
    if now < before * (1 - settings.growth_least_gain):
        return ""
    return (
        f"{progress.prequential_exact:.0%} of the answers are right, and {pairs} pairs have brought the loss "
        f"from {before:.3f} to {now:.3f}"
    )


def start_over(progress: Progress) -> None:
    """After a drift: what was learnt before says nothing about a plateau."""
    progress.looked, progress.looked_loss = progress.scored, 0.0
