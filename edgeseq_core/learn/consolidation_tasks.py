"""Tasks as a consolidation takes them from the store: champion, replay, and the pairs that judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.consolidation import Pairs, Replay
from edgeseq_core.learn.example import read_example
from edgeseq_core.model.base import Base
from edgeseq_core.replay.buffer import ROLES, Part, ReplayBuffer
from edgeseq_core.snapshots.registry import SnapshotRegistry


@dataclass(frozen=True)
class Kept:
    """A task as the store has it."""

    task: str
    champion: str  # snapshot id
    payload: bytes
    checkpoint: bytes
    step: int  # the learner's last one: the task has not moved on while it is the same
    replay: Replay  # the reservoir
    held_out: Pairs  # recent slice and probe set: no calibration has learnt them


def kept_tasks(
    buffer: ReplayBuffer,
    registry: SnapshotRegistry,
    base: Base,
    *,
    partitions: int,
    take: bool = True,
) -> list[Kept]:
    """All tasks that have a champion.

    ``take``: the owners' epochs, too, so consumer and learner must be stopped.  Without it these may run on,
    and `publish` refuses what a task has learnt since.
    Raises ConfigError when there are none, or when one cannot be judged: it is pinned, on another base, being
    learnt anew or purged, or holds out nothing.
    """
    found = []
    for partition in range(partitions):
        tasks = buffer.tasks(partition)
        if tasks and take:
            for role in ROLES:
                buffer.acquire(role, partition)
        served = [task for task in tasks if registry.status(task).champion is not None]
        found += [_kept(buffer, registry, base, task, partition) for task in served]
    if not found:
        raise ConfigError("no task has a champion yet: teach some first")
    return found


def _kept(
    buffer: ReplayBuffer, registry: SnapshotRegistry, base: Base, task: str, partition: int
) -> Kept:
    """A task that can be judged, or ConfigError."""
    status, state = registry.status(task), buffer.state(task)
    assert status.champion is not None
    manifest = registry.record(task, status.champion).manifest
    learn = _pairs(buffer, task, base, ["reservoir"])
    held_out = _pairs(buffer, task, base, ["recent", "probe"])
    for wrong, what in (
        (
            task in registry.relearning([partition]) or status.purging or status.tainted,
            "is to be learnt anew: let its learner do so first",
        ),
        (manifest.base != base.digest, f"is served on base {manifest.base[:12]}: name that one"),
        (status.pinned, "is pinned to its champion: unpin it first"),
        (
            not learn or not held_out,
            "holds out no pairs that could judge a new base: teach it more, not as corrections",
        ),
    ):
        if wrong:
            raise ConfigError(f"task {task} {what}")
    assert state.checkpoint is not None
    return Kept(
        task=task,
        champion=status.champion,
        payload=registry.payload(manifest),
        checkpoint=state.checkpoint,
        step=state.last_step,
        replay=Replay(learn, gone=1 - len(learn) / max(len(learn), buffer.stats(task).learnt)),
        held_out=held_out,
    )


def _pairs(buffer: ReplayBuffer, task: str, base: Base, parts: Sequence[Part]) -> Pairs:
    """The texts of some parts of a task."""
    stored = (pair for part in parts for pair in buffer.read(task, part))
    read = (read_example(p, base.vocabulary, base.header.record_digest) for p in stored)
    return [(example.source, example.target) for example in read]
