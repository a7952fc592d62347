"""What a drift changes: which pairs are of the new regime, and how the task learns until it knows it.

Replay is what makes a drift slow: the reservoir is full of pairs that say the opposite.  So a task first
*adapts*: it replays only pairs since the drift began, in more and smaller steps, and holds out enough of
them for the gate to see that it has.  Then older pairs come back, each with a weight that falls with its
loss: those that the new regime contradicts are let go, those that are still true are kept.

All is decided by the task's progress, which travels in the checkpoint, and by the pairs themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseq_core.learn import plateau
from edgeseq_core.learn.drift import ONSET_PAIRS
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.growth_policy import start_over
from edgeseq_core.learn.progress import Progress
from edgeseq_core.settings import LearningSettings

DOUBT = 4  # power by which a pair from before a drift loses weight as its loss rises
LEVEL_FADE = 0.9  # of the loss of pairs since a drift, a step


def note(progress: Progress, example: Example) -> None:
    """One more pair is scored."""
    progress.latest.append(f"{example.topic}|{example.offset}")
    del progress.latest[:-ONSET_PAIRS]
    progress.since_drift += 1


def begin(progress: Progress, ago: int) -> bool:
    """A regime began ``ago`` scored pairs ago; False when it is the one that is known already.

    A detector shows one rise several times, each time with a better idea of its beginning.
    """
    known = bool(progress.drifted) and 2 * ago > progress.since_drift
    begins = {topic: int(p.rpartition("|")[2]) for topic, p in progress.positions.items()}
    places = [
        (topic, int(offset)) for topic, _, offset in (p.rpartition("|") for p in progress.latest)
    ]
    begins |= {topic: offset + 1 for topic, offset in places[:-ago]}
    begins |= dict(reversed(places[-ago:]))
    progress.drifted, progress.since_drift = begins, min(ago, len(places))
    if known:
        return False
    progress.drifts += 1
    progress.schedule, progress.regime_loss = 0, 0.0
    start_over(progress)
    plateau.start_over(progress)
    return True


def is_before(progress: Progress, example: Example) -> bool:
    """Whether a pair came before the last drift began."""
    return example.offset < progress.drifted.get(example.topic, 0)


def adapts(progress: Progress, settings: LearningSettings) -> bool:
    """Whether the last drift is so recent that only pairs since then are replayed."""
    recent = progress.since_drift < settings.drift_adapt_pairs
    return bool(progress.drifted) and recent and not progress.relearning


def trust(progress: Progress, losses: Tensor, before: Tensor) -> Tensor:
    """The weight of each pair ``[B]``: 1, and less the more a pair from before the drift is contradicted.

    ``losses`` are nats a token ``[B]``; what is usual since the drift is noted in ``progress``.
    """
    since = losses[~before]
    if before.any() and not progress.regime_loss and not since.numel():
        return (~before).to(losses.dtype)
    if since.numel() and torch.isfinite(mean := since.mean()):
        past = LEVEL_FADE if progress.regime_loss else 0.0
        progress.regime_loss = past * progress.regime_loss + (1 - past) * mean.item()
    doubted = (progress.regime_loss / losses).clamp(max=1.0) ** DOUBT
    return torch.where(before, doubted, torch.ones_like(losses))
