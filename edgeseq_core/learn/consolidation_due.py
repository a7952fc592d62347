"""Whether a base should be consolidated: the fast path has stopped getting better, and enough is new.

Read from the store alone; the learner goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseq_core.learn.checkpoint_header import read_header
from edgeseq_core.learn.progress import Progress
from edgeseq_core.replay.buffer import ReplayBuffer
from edgeseq_core.settings import ConsolidatorSettings
from edgeseq_core.snapshots.registry import SnapshotRegistry

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Last:
    """The last base that was judged: when, and what all tasks had learnt by then."""

    at_ms: int = 0
    learnt: int = 0  # pairs


def learnt(buffer: ReplayBuffer, partitions: int) -> int:
    """Pairs that all tasks have learnt."""
    return sum(
        buffer.stats(task).learnt
        for partition in range(partitions)
        for task in buffer.tasks(partition)
    )


def flat_tasks(
    buffer: ReplayBuffer, registry: SnapshotRegistry, partitions: int, *, looks: int
) -> list[str]:
    """Tasks with a champion whose loss has fallen no further at so many looks (`plateau`)."""
    found = []
    for partition in range(partitions):
        for task in buffer.tasks(partition):
            if registry.status(task).champion is None:
                continue
            checkpoint = buffer.state(task).checkpoint
            if checkpoint and Progress(**read_header(checkpoint)["progress"]).flat_looks >= looks:
                found.append(task)
    return found


def too_soon(last: Last, settings: ConsolidatorSettings, *, now_ms: int, learnt: int) -> str:
    """Why no plateau is looked for yet; empty when it is time."""
    hours = (now_ms - last.at_ms) / HOUR_MS
    if hours < settings.hours_between:
        return f"the last one was judged {hours:.1f} hours ago"
    if learnt - last.learnt < settings.least_pairs:
        return f"only {learnt - last.learnt} pairs were learnt since"
    return ""


def too_few(flat: Sequence[str], settings: ConsolidatorSettings) -> str:
    """Why the tasks' plateaus are no reason; empty when they are."""
    if len(flat) < settings.least_tasks:
        return f"{len(flat)} tasks have stopped getting better, {settings.least_tasks} must have"
    return ""
