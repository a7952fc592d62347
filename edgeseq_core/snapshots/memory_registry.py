"""The in-memory twin of the Redis registry; shares the state of a `replay.memory.MemoryStore`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeseq_core.errors import FencedError, SnapshotError
from edgeseq_core.replay.state import MemoryState, PartitionState, TaskState
from edgeseq_core.snapshots.lineage import descends_from
from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord
from edgeseq_core.snapshots.payloads import (
    KEPT_HELD,
    KEPT_PROMOTIONS,
    check_offer,
    missing,
    promotion_ms,
    purge_line,
    thinned,
    verified,
    wants_to_serve,
)
from edgeseq_core.snapshots.registry import Offer, Purge, Restart, TaskStatus


class MemoryRegistry:
    """A snapshot registry in memory."""

    def __init__(
        self,
        memory: MemoryState,
        *,
        kept_promotions: int = KEPT_PROMOTIONS,
        kept_held: int = KEPT_HELD,
        wanted: Collection[str] = (),
    ) -> None:
        """``wanted`` snapshots are never dropped: `learn.rebuild` knows which a person will choose."""
        self._memory, self._wanted = memory, wanted
        self._kept_promotions, self._kept_held = kept_promotions, kept_held

    def offer(self, offer: Offer) -> bool:
        check_offer(offer)
        manifest = offer.record.manifest
        with self._memory.lock:
            owned = self._memory.partition_of(offer.task)
            t = owned.task(offer.task)
            owned.fence("learner", offer.epoch)
            _fence_champion(owned, offer.task, offer.expected_champion)
            _fence_branch(t, offer.task, offer.branch)
            t.reference, snapshot_id = offer.reference, manifest.snapshot_id
            owned.relearning.pop(offer.task, None)
            t.payloads[snapshot_id] = offer.payload
            t.kept[snapshot_id] = manifest.step
            t.manifests.setdefault(snapshot_id, offer.record.model_dump_json())
            t.journal.append(offer.journal)
            serves = wants_to_serve(offer) and t.pinned_ms is None
            if serves:
                self._serve(owned, offer.task, snapshot_id, promotion_ms(offer.record))
            elif snapshot_id not in t.promotions:
                if snapshot_id in t.held:
                    t.held.remove(snapshot_id)
                t.held.append(snapshot_id)
                self._drop_held(owned, offer.task)
            if t.purging is not None:
                _end(owned, t, offer.task)
            return serves

    def champions(self, partitions: Sequence[int]) -> dict[str, str]:
        with self._memory.lock:
            return {
                task: snapshot_id
                for partition in partitions
                for task, snapshot_id in self._memory.partitions[partition].champions.items()
            }

    def status(self, task: str) -> TaskStatus:
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            champion, pinned = owned.champions.get(task), t.pinned_ms is not None
            return TaskStatus(champion, pinned, t.branch, t.base, t.tainted, t.purging is not None)

    def record(self, task: str, snapshot_id: str) -> SnapshotRecord:
        with self._memory.lock:
            t = self._memory.task(task)
            if snapshot_id not in t.manifests:
                raise missing(f"snapshot {snapshot_id} of task {task} is unknown")
            return _record(t, snapshot_id)

    def payload(self, manifest: SnapshotManifest) -> bytes:
        with self._memory.lock:
            kept = self._memory.task(manifest.task).payloads.get(manifest.snapshot_id)
        return verified(manifest, kept)

    def kept(self, task: str) -> set[str]:
        with self._memory.lock:
            return set(self._memory.task(task).kept)

    def history(self, task: str, *, last: int | None = None) -> list[SnapshotRecord]:
        with self._memory.lock:
            t = self._memory.task(task)
            return [_record(t, snapshot_id) for snapshot_id in list(t.manifests)[-(last or 0) :]]

    def promote(
        self,
        task: str,
        snapshot_id: str,
        *,
        expected_champion: str | None,
        now_ms: int,
        journal: str,
    ) -> None:
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            _fence_champion(owned, task, expected_champion)
            _fence_base(t, task, snapshot_id)
            if snapshot_id not in t.kept:
                raise missing(f"the bytes of snapshot {snapshot_id} are not kept")
            t.journal.append(journal)
            t.chosen = snapshot_id
            self._serve(owned, task, snapshot_id, now_ms)

    def rollback(
        self,
        task: str,
        snapshot_id: str,
        *,
        expected_champion: str | None,
        now_ms: int,
        journal: str,
    ) -> None:
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            _fence_champion(owned, task, expected_champion)
            _fence_base(t, task, snapshot_id)
            step = _way_back(t, snapshot_id)
            abandoned = t.step
            t.chosen, t.pinned_ms, t.step, t.branch = snapshot_id, now_ms, step, t.branch + 1
            t.forks.append((t.last_step, step))
            t.journal.append(journal)
            t.drop_checkpoint(abandoned)
            self._serve(owned, task, snapshot_id, now_ms)

    def restart(self, restart: Restart) -> None:
        task, snapshot_id = restart.task, restart.snapshot_id
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            _fence_champion(owned, task, restart.expected_champion)
            _fence_branch(t, task, restart.branch)
            step = 0 if snapshot_id is None else t.kept.get(snapshot_id)
            if step is None:
                raise missing(f"the bytes of snapshot {snapshot_id} are not kept")
            abandoned = t.step
            t.step, t.branch = step, t.branch + 1
            if (champion := restart.expected_champion) is not None:
                t.left[_record(t, champion).manifest.base] = champion
            if restart.base is not None:
                t.base, t.pinned_ms = restart.base, None
            t.forks.append((t.last_step, abandoned if snapshot_id is None else step))
            t.journal.append(restart.journal)
            t.drop_checkpoint(abandoned)
            owned.relearning.pop(task, None)
            if snapshot_id is None and t.last_step:
                owned.relearning[task] = t.branch
            elif snapshot_id is not None:
                self._serve(owned, task, snapshot_id, restart.now_ms)

    def purge(self, purge: Purge) -> None:
        task = purge.task
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            _fence_champion(owned, task, purge.expected_champion)
            _fence_branch(t, task, purge.branch)
            t.forks.append((t.last_step, t.step))
            t.step, t.branch = 0, t.branch + 1
            dropped, t.purging = sorted(t.kept), purge.expected_champion
            t.pinned_ms = t.chosen = t.reference = None
            t.tainted = False
            t.left.clear()
            t.checkpoints.clear()
            for snapshot_id in set(t.kept) - {t.purging}:
                del t.kept[snapshot_id], t.payloads[snapshot_id]
            t.promotions = [one for one in t.promotions if one == t.purging]
            t.held.clear()
            owned.relearning.pop(task, None)
            if t.parts["reservoir"]:
                owned.relearning[task] = t.branch
            elif t.purging is not None:
                _end(owned, t, task)
            t.journal.append(purge_line(purge, dropped))

    def left(self, task: str, base: str) -> str | None:
        with self._memory.lock:
            return self._memory.task(task).left.get(base)

    def relearning(self, partitions: Sequence[int]) -> dict[str, int]:
        with self._memory.lock:
            return {
                task: branch
                for partition in partitions
                for task, branch in self._memory.partitions[partition].relearning.items()
            }

    def pin(self, task: str, pinned: bool, *, now_ms: int, journal: str) -> None:
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            t.pinned_ms = now_ms if pinned else None
            if pinned:
                t.chosen = owned.champions.get(task, t.chosen)
            t.journal.append(journal)

    def is_learnt(self, task: str, step: int) -> bool:
        with self._memory.lock:
            owned = self._memory.partition_of(task)
            t = owned.task(task)
            champion = owned.champions.get(task)
            return champion is not None and descends_from(t.kept[champion], step, t.forks)

    def _serve(self, owned: PartitionState, task: str, snapshot_id: str, now_ms: int) -> None:
        t = owned.task(task)
        if snapshot_id in t.held:
            t.held.remove(snapshot_id)
        if snapshot_id not in t.promotions:
            t.promotions.append(snapshot_id)
        t.promoted_ms.setdefault(snapshot_id, now_ms)
        owned.champions[task] = snapshot_id
        promoted = {one: t.promoted_ms[one] for one in t.promotions}
        spared = self._spared(owned, task)
        for dropped in thinned(promoted, spared=spared, most=self._kept_promotions):
            t.promotions.remove(dropped)
            _drop(t, dropped)

    def _drop_held(self, owned: PartitionState, task: str) -> None:
        t, spared = owned.task(task), self._spared(owned, task)
        beyond = max(0, len(t.held) - self._kept_held)
        for dropped in [one for one in t.held if one not in spared][:beyond]:
            t.held.remove(dropped)
            _drop(t, dropped)

    def _spared(self, owned: PartitionState, task: str) -> set[str | None]:
        """The champion, what a person chose or left last, and what the gate compares with."""
        t = owned.task(task)
        named = (owned.champions.get(task), t.chosen, t.reference)
        return {*named, *t.left.values(), *self._wanted}


def _fence_champion(owned: PartitionState, task: str, expected: str | None) -> None:
    champion = owned.champions.get(task)
    if champion != expected:
        raise FencedError(f"the champion of task {task} is {champion}, not {expected}")


def _end(owned: PartitionState, t: TaskState, task: str) -> None:
    """Delete the champion that a purge left, whether or not another serves now."""
    assert t.purging is not None
    if owned.champions.get(task) == t.purging:
        del owned.champions[task]
    if t.purging in t.kept:
        del t.kept[t.purging], t.payloads[t.purging]
        t.promotions.remove(t.purging)
    t.purging = None


def _fence_branch(t: TaskState, task: str, branch: int) -> None:
    if t.branch != branch:
        raise FencedError(f"the branch of task {task} is {t.branch}, not {branch}")


def _fence_base(t: TaskState, task: str, snapshot_id: str) -> None:
    """Raises SnapshotError for a snapshot of another base than the task learns on."""
    if t.base is None or snapshot_id not in t.manifests:
        return
    base = _record(t, snapshot_id).manifest.base
    if base != t.base:
        raise SnapshotError(
            f"snapshot {snapshot_id} belongs to base {base[:12]}, task {task} learns on "
            f"{t.base[:12]}: change the base back first"
        )


def _way_back(t: TaskState, snapshot_id: str) -> int:
    """The step of a snapshot that can be rolled back to; raises SnapshotError."""
    if snapshot_id not in t.promoted_ms:
        raise missing(f"snapshot {snapshot_id} never served")
    step = t.kept.get(snapshot_id)
    if step is None:
        raise missing(f"the bytes of snapshot {snapshot_id} are not kept")
    if step and step not in t.checkpoints:
        raise missing(f"the checkpoint of snapshot {snapshot_id} is not kept")
    return step


def _drop(t: TaskState, snapshot_id: str) -> None:
    """A kept snapshot loses its bytes, and its checkpoint if nothing else stands on it."""
    step = t.kept.pop(snapshot_id)
    del t.payloads[snapshot_id]
    t.drop_checkpoint(step)


def _record(t: TaskState, snapshot_id: str) -> SnapshotRecord:
    record = SnapshotRecord.model_validate_json(t.manifests[snapshot_id])
    return record.model_copy(update={"promoted_ms": t.promoted_ms.get(snapshot_id)})
