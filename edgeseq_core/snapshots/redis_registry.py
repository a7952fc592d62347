"""The snapshot registry in Redis: every move is one Lua script over the keys of one partition.

Layout of a task: hashes ``manifests`` (id -> record, kept always; order in list ``history``),
``payloads`` (id -> int8 bytes), ``kept`` (id -> step of snapshots with bytes) and ``promoted``
(id -> ms); sorted sets ``promotions`` and ``held`` of those with bytes, oldest first; list
``forks``.  The buffer's ``state`` and ``checkpoints`` are shared with the learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import redis

from edgeseq_core.keys import Keys, partition_of
from edgeseq_core.replay.connection import load_script, store_errors
from edgeseq_core.snapshots.lineage import descends_from
from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord
from edgeseq_core.snapshots.payloads import (
    KEPT_HELD,
    KEPT_PROMOTIONS,
    check_offer,
    missing,
    promotion_ms,
    purge_line,
    verified,
    wants_to_serve,
)
from edgeseq_core.snapshots.registry import Offer, Purge, Restart, TaskStatus

_STATUS = ["pinned_ms", "branch", "base", "tainted", "purging"]


class RedisRegistry:
    """A snapshot registry in Redis; ``client`` comes from `replay.connection.connect`."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str,
        partitions: int,
        kept_promotions: int = KEPT_PROMOTIONS,
        kept_held: int = KEPT_HELD,
    ) -> None:
        self._client: Any = client
        self._prefix, self._partitions = prefix, partitions
        self._kept_promotions, self._kept_held = kept_promotions, kept_held
        names = ("offer", "promote", "rollback", "restart", "purge", "pin")
        self._scripts = {n: load_script(client, "edgeseq_core.snapshots", n) for n in names}

    def _owner(self, task: str) -> Keys:
        return Keys(self._prefix, partition_of(task, self._partitions))

    def _run(self, script: str, what: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with store_errors(what):
            return self._scripts[script](keys=keys, args=args)

    def offer(self, offer: Offer) -> bool:
        check_offer(offer)
        task, manifest = offer.task, offer.record.manifest
        keys = self._owner(task)
        before = ("state", "checkpoints", "kept", "journal", "payloads")
        after = ("manifests", "history", "promotions", "held", "promoted")
        script_keys = [
            keys.epoch("learner"),
            keys.champions,
            *(keys.of_task(task, name) for name in (*before, *after)),
            keys.relearning,
        ]
        args = (
            task,
            offer.epoch,
            offer.branch,
            offer.expected_champion or "",
            manifest.snapshot_id,
            manifest.step,
            offer.payload,
            offer.record.model_dump_json(),
            offer.journal,
            int(wants_to_serve(offer)),
            promotion_ms(offer.record),
            self._kept_promotions,
            self._kept_held,
            offer.reference or "",
        )
        what = f"offering snapshot {manifest.snapshot_id}"
        return bool(self._run("offer", what, script_keys, args))

    def champions(self, partitions: Sequence[int]) -> dict[str, str]:
        return self._of_partitions(partitions, "champions")

    def _of_partitions(
        self, partitions: Sequence[int], name: Literal["champions", "relearning"]
    ) -> dict[str, str]:
        """A hash of each partition, task -> text, in one round trip."""
        with store_errors(f"reading {name}"):
            pipe = self._client.pipeline(transaction=False)
            for partition in partitions:
                pipe.hgetall(getattr(Keys(self._prefix, partition), name))
            answers = pipe.execute()
        return {task.decode(): text.decode() for found in answers for task, text in found.items()}

    def status(self, task: str) -> TaskStatus:
        keys = self._owner(task)
        with store_errors(f"reading the status of task {task}"):
            pipe = self._client.pipeline(transaction=False)
            pipe.hget(keys.champions, task)
            pipe.hmget(keys.of_task(task, "state"), _STATUS)
            champion, (pinned_ms, branch, base, tainted, purging) = pipe.execute()
        serving = champion.decode() if champion is not None else None
        return TaskStatus(
            serving,
            pinned_ms is not None,
            int(branch or 0),
            base.decode() if base else None,
            tainted is not None,
            purging is not None,
        )

    def record(self, task: str, snapshot_id: str) -> SnapshotRecord:
        keys = self._owner(task)
        with store_errors(f"reading snapshot {snapshot_id}"):
            pipe = self._client.pipeline(transaction=False)
            pipe.hget(keys.of_task(task, "manifests"), snapshot_id)
            pipe.hget(keys.of_task(task, "promoted"), snapshot_id)
            text, promoted_ms = pipe.execute()
        if text is None:
            raise missing(f"snapshot {snapshot_id} of task {task} is unknown")
        return _record(text, promoted_ms)

    def payload(self, manifest: SnapshotManifest) -> bytes:
        key = self._owner(manifest.task).of_task(manifest.task, "payloads")
        with store_errors(f"reading the bytes of snapshot {manifest.snapshot_id}"):
            return verified(manifest, self._client.hget(key, manifest.snapshot_id))

    def kept(self, task: str) -> set[str]:
        with store_errors(f"reading which snapshots of task {task} are kept"):
            names = self._client.hkeys(self._owner(task).of_task(task, "kept"))
        return {name.decode() for name in names}

    def history(self, task: str, *, last: int | None = None) -> list[SnapshotRecord]:
        keys = self._owner(task)
        with store_errors(f"reading the history of task {task}"):
            ids = self._client.lrange(keys.of_task(task, "history"), -last if last else 0, -1)
            if not ids:
                return []
            pipe = self._client.pipeline(transaction=False)
            pipe.hmget(keys.of_task(task, "manifests"), ids)
            pipe.hmget(keys.of_task(task, "promoted"), ids)
            texts, promoted = pipe.execute()
        return [_record(*row) for row in zip(texts, promoted, strict=True)]

    def promote(
        self,
        task: str,
        snapshot_id: str,
        *,
        expected_champion: str | None,
        now_ms: int,
        journal: str,
    ) -> None:
        args = (task, snapshot_id, expected_champion or "", now_ms, journal, self._kept_promotions)
        self._run("promote", f"promoting {snapshot_id}", self._serving_keys(task), args)

    def rollback(
        self,
        task: str,
        snapshot_id: str,
        *,
        expected_champion: str | None,
        now_ms: int,
        journal: str,
    ) -> None:
        keys = [*self._serving_keys(task), self._owner(task).of_task(task, "forks")]
        args = (task, snapshot_id, expected_champion or "", now_ms, journal, self._kept_promotions)
        self._run("rollback", f"rolling task {task} back to {snapshot_id}", keys, args)

    def _serving_keys(self, task: str) -> list[str]:
        keys = self._owner(task)
        before = ("state", "checkpoints", "kept", "journal", "payloads")
        names = (*before, "promotions", "held", "promoted", "manifests")
        return [keys.champions, *(keys.of_task(task, name) for name in names)]

    def restart(self, restart: Restart) -> None:
        task, keys = restart.task, self._owner(restart.task)
        script_keys = [
            *self._serving_keys(task),
            keys.of_task(task, "forks"),
            keys.relearning,
        ]
        args = (
            task,
            restart.branch,
            restart.expected_champion or "",
            restart.now_ms,
            restart.journal,
            self._kept_promotions,
            restart.base or "",
            restart.snapshot_id or "",
        )
        self._run("restart", f"restarting the learner of task {task}", script_keys, args)

    def purge(self, purge: Purge) -> None:
        task, keys = purge.task, self._owner(purge.task)
        script_keys = [
            *self._serving_keys(task),
            keys.of_task(task, "forks"),
            keys.relearning,
            keys.part(task, "reservoir"),
        ]
        before, after = purge_line(purge, ["ids"]).split('"ids"')
        args = (task, purge.branch, purge.expected_champion or "", before, after)
        self._run("purge", f"purging task {task}", script_keys, args)

    def left(self, task: str, base: str) -> str | None:
        with store_errors(f"reading the status of task {task}"):
            state = self._owner(task).of_task(task, "state")
            found = self._client.hget(state, f"champion:{base}")
        return found.decode() if found is not None else None

    def relearning(self, partitions: Sequence[int]) -> dict[str, int]:
        return {
            task: int(branch)
            for task, branch in self._of_partitions(partitions, "relearning").items()
        }

    def pin(self, task: str, pinned: bool, *, now_ms: int, journal: str) -> None:
        keys = self._owner(task)
        script_keys = [keys.of_task(task, "state"), keys.of_task(task, "journal"), keys.champions]
        self._run("pin", f"pinning task {task}", script_keys, (int(pinned), now_ms, journal, task))

    def is_learnt(self, task: str, step: int) -> bool:
        keys = self._owner(task)
        with store_errors(f"reading the history of task {task}"):
            pipe = self._client.pipeline(transaction=False)
            pipe.hget(keys.champions, task)
            pipe.hgetall(keys.of_task(task, "kept"))
            pipe.lrange(keys.of_task(task, "forks"), 0, -1)
            champion, kept, forks = pipe.execute()
        if champion is None or champion not in kept:
            return False
        pairs = [fork.split(b":") for fork in forks]
        return descends_from(int(kept[champion]), step, [(int(a), int(b)) for a, b in pairs])


def _record(text: bytes, promoted_ms: bytes | None) -> SnapshotRecord:
    record = SnapshotRecord.model_validate_json(text)
    return record.model_copy(update={"promoted_ms": int(promoted_ms) if promoted_ms else None})
