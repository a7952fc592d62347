"""Gathers what a store and its registry hold, for the history checker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeseq_core.errors import SnapshotError
from edgeseq_core.replay.buffer import PARTS, PairOutcome, ReplayBuffer
from edgeseq_core.snapshots.registry import SnapshotRegistry
from tests.faults.history import Name, TaskFacts


def task_facts(
    buffer: ReplayBuffer, registry: SnapshotRegistry, *, partitions: int
) -> dict[str, TaskFacts]:
    """The facts of every task that is registered or has a champion."""
    pointers = [registry.champions([n]) for n in range(partitions)]
    tasks = {task for n in range(partitions) for task in buffer.tasks(n)}
    tasks |= {task for found in pointers for task in found}
    return {task: _facts(buffer, registry, task, pointers) for task in sorted(tasks)}


def _facts(
    buffer: ReplayBuffer,
    registry: SnapshotRegistry,
    task: str,
    pointers: Iterable[Mapping[str, str]],
) -> TaskFacts:
    records = registry.history(task)
    champions = [found[task] for found in pointers if task in found]
    missing, damaged = set(), set()
    for record in records:
        try:
            registry.payload(record.manifest)
        except SnapshotError as error:
            kind = damaged if "do not match" in str(error) else missing
            kind.add(record.manifest.snapshot_id)
    return TaskFacts(
        journal=buffer.journal(task),
        parts={part: [pair.key for pair in buffer.read(task, part)] for part in PARTS},
        records=records,
        champions=champions,
        missing=frozenset(missing | (set(champions) - {r.manifest.snapshot_id for r in records})),
        damaged=frozenset(damaged),
    )


def outcomes(buffer: ReplayBuffer, names: Iterable[Name]) -> dict[Name, PairOutcome | None]:
    """What became of some pairs."""
    return {name: buffer.outcome(*name) for name in names}
