"""Log + journal + base + settings = the same snapshots, byte for byte.

What time decided (which pairs a step took, when a candidate was offered, verdicts, rollbacks, pins) is in
the journal; everything else follows from the pairs.  Rebuilding checks itself: a snapshot's id is the
digest of its bytes, checkpoint, positions and parent, so equal ids are equal content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgeseq_core.clock import Clock, SystemClock
from edgeseq_core.errors import SnapshotError
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.model.base import Base
from edgeseq_core.replay.buffer import IncomingPair, Position
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.replay.record import owner_of, unpack
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.manifest import GateReport
from edgeseq_core.snapshots.memory_registry import MemoryRegistry
from edgeseq_core.snapshots.registry import Purge, Restart


def rebuild(
    task: str,
    journal: Iterable[str],
    records: Mapping[str, bytes],
    base: Base,
    settings: LearningSettings,
    *,
    clock: Clock | None = None,
) -> tuple[MemoryStore, MemoryRegistry]:
    """Learn a task again as its journal says, from its pairs' records by key.

    Returns the store and registry as they were after the last journal line.  Raises SnapshotError at the
    first snapshot that does not come out equal, or when a pair is missing.
    """
    store, clock, lines = MemoryStore(partitions=1), clock or SystemClock(), list(journal)
    # What is kept of promotions depends on when they were; a rebuild is quicker than life was.
    registry = MemoryRegistry(store.memory, wanted=_chosen(lines))
    consumer = store.acquire("consumer", 0)
    loop = LearnerLoop(
        store, registry, base, settings, partitions=[0], partition_count=1, clock=clock, gates=False
    )
    for line in lines:
        entry: dict[str, Any] = json.loads(line)
        kind = entry["kind"]
        if kind == "step":
            for key in (*entry["corrections"], *entry["bulk"]):
                if key not in records:
                    raise SnapshotError(
                        f"step {entry['step']} learnt pair {key}, which is not here"
                    )
                _place(store, task, key, records[key], base, consumer)
            if "champion" in entry:
                loop.follow(task, entry["champion"])
            loop.run_once()
        elif kind == "gate":
            report = GateReport(
                verdict=entry["verdict"],
                reasons=entry["reasons"],
                reference_id=entry["reference"],
                leads=entry["leads"],
            )
            alternative = entry.get("alternative", False)
            made = loop.submit_as(task, report, alternative=alternative).snapshot_id
            if made != entry["snapshot_id"]:
                raise SnapshotError(
                    f"rebuilding gave {made} where the journal has {entry['snapshot_id']}"
                )
        elif kind == "remove":
            _forget(store, task, entry, records)
            loop.reopen(task)
        elif kind == "restart" and entry["base"] not in (None, base.digest):
            raise SnapshotError(
                f"task {task} was changed to base {entry['base'][:12]} after step "
                f"{store.state(task).last_step}: what it learnt since cannot be rebuilt on this one"
            )
        else:
            _decide(registry, task, entry, line, clock.wall_ms())
            loop.reopen(task)
    return store, registry


def _chosen(journal: Iterable[str]) -> set[str]:
    """Snapshots that a person promotes or rolls back to."""
    entries = (json.loads(line) for line in journal)
    return {e["snapshot_id"] for e in entries if e["kind"] in ("promote", "rollback")}


def _decide(
    registry: MemoryRegistry, task: str, entry: Mapping[str, Any], line: str, now_ms: int
) -> None:
    """A person's decision, again."""
    status = registry.status(task)
    if entry["kind"] == "purge":
        registry.purge(
            Purge(
                task=task,
                branch=status.branch,
                expected_champion=status.champion,
                purge=entry["purge"],
                producer=entry["producer"],
                pair_id=entry["pair_id"],
                now_ms=now_ms,
            )
        )
        return
    if entry["kind"] == "restart":
        registry.restart(
            Restart(
                task=task,
                branch=status.branch,
                expected_champion=status.champion,
                now_ms=now_ms,
                journal=line,
                base=entry["base"],
                snapshot_id=entry["snapshot_id"],
            )
        )
        return
    if entry["kind"] == "pin":
        registry.pin(task, entry["action"] == "pin", now_ms=now_ms, journal=line)
        return
    move = registry.promote if entry["kind"] == "promote" else registry.rollback
    move(
        task,
        entry["snapshot_id"],
        expected_champion=status.champion,
        now_ms=now_ms,
        journal=line,
    )


def _forget(
    store: MemoryStore, task: str, entry: Mapping[str, Any], records: Mapping[str, bytes]
) -> None:
    """Remove again what the learner had taken; what waited was never placed here."""
    for key in entry["taken"]:
        producer, pair_id = owner_of(records[key])
        store.remove(task, producer=producer, pair_id=pair_id)


def _place(store: MemoryStore, task: str, key: str, record: bytes, base: Base, epoch: int) -> None:
    """Put one pair into the fresh part under the key it had."""
    pair = unpack(record, base.header.record_digest)
    log = key.rsplit(":", 2)[0]
    store.ingest(
        0,
        [
            IncomingPair(
                task=task,
                producer=pair.producer,
                pair_id=pair.pair_id,
                topic=pair.topic,
                offset=pair.offset,
                arrived_ms=pair.arrived_ms,
                correction=pair.correction,
                record=record,
            )
        ],
        epoch=epoch,
        topic=pair.topic,
        expected=store.positions(0).get(pair.topic),
        position=Position(log, pair.offset + 1),
        now_ms=pair.arrived_ms,
    )
