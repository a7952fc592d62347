"""A task learns anew what its buffer holds, while its champion serves on.

The store is told (`SnapshotRegistry.restart`); the learner that owns the task's partition notices, takes
its reservoir several times from a calibration that is the identity, and offers what comes of it to the gate,
which scores it on the held-out pairs as ever.  A learner that is stopped begins with it when it starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from edgeseq_core.clock import Clock
from edgeseq_core.errors import FencedError
from edgeseq_core.snapshots.registry import Restart, SnapshotRegistry, TaskStatus

ATTEMPTS = 5


def relearn(
    registry: SnapshotRegistry,
    task: str,
    *,
    clock: Clock,
    reason: str = "",
    base: str | None = None,
    snapshot_id: str | None = None,
) -> None:
    """Restart a task's learner.

    ``base`` (a digest) says that it learns on another base from now on, ``snapshot_id`` names a kept
    snapshot of that base: it serves at once, and the learner goes on from it instead.
    """
    now_ms = clock.wall_ms()
    line = {
        "kind": "restart",
        "base": base,
        "snapshot_id": snapshot_id,
        "reason": reason,
        "at_ms": now_ms,
    }

    def restart(status: TaskStatus) -> None:
        registry.restart(
            Restart(
                task=task,
                branch=status.branch,
                expected_champion=status.champion,
                now_ms=now_ms,
                journal=json.dumps(line),
                base=base,
                snapshot_id=snapshot_id,
            )
        )

    at_present(registry, task, restart)


def at_present(registry: SnapshotRegistry, task: str, act: Callable[[TaskStatus], None]) -> None:
    """Act on a task as it is; again where its learner has just promoted, which it may each second."""
    for _ in range(ATTEMPTS - 1):
        try:
            return act(registry.status(task))
        except FencedError:
            continue
    return act(registry.status(task))
