"""What a task's learner remembers beside its tensors; all of it travels in the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

FADE = 0.99  # of the fading prequential score, a pair


@dataclass
class Progress:
    """How far a task has come, and how well it does."""

    step: int = 0
    parent: int = 0
    schedule: int = 0  # steps since the start or the last drift
    warmed: int = 0  # steps since the start or growth
    pairs: int = 0  # learnt
    held_out: int = 0
    skipped: int = 0
    drifts: int = 0
    drifted: dict[str, int] = field(
        default_factory=dict
    )  # topic -> offset at which the last one began
    since_drift: int = 0  # scored since then
    regime_loss: float = 0.0  # fading mean over pairs since then while training; 0: none yet
    latest: list[str] = field(default_factory=list)  # "topic|offset" of the pairs scored last
    positions: dict[str, str] = field(default_factory=dict)  # topic -> "log|next offset"
    prequential_loss: float = 0.0  # fading mean, nats a token
    prequential_exact: float = 0.0
    unknown: float = 0.0  # fading share of sources with characters that the base does not know
    scored: int = 0
    looked: int = 0  # scored at the last look whether to grow
    looked_loss: float = 0.0  # the fading loss then; 0 before the first look
    flat_scored: int = 0  # scored at the last look for a plateau
    flat_loss: float = 0.0  # the least fading loss at a look; 0 before the first
    flat_looks: int = 0  # in a row since it was the least
    relearning: int = 0  # steps until a task that began anew is offered
