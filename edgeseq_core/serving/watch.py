"""Follows the champions: verifies a new snapshot, swaps it in, and says how fresh it is.

The champion of a task that the engine does not hold is only noted, unless there is room: it is read when
the task is asked for, by this same thread, between two polls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from edgeseq_core.clock import Clock
from edgeseq_core.engine import Engine
from edgeseq_core.errors import SnapshotError, StoreError
from edgeseq_core.replay.buffer import ReplayBuffer, TaskSettings
from edgeseq_core.serving.meter import Meter
from edgeseq_core.serving.residents import Residents, Wish
from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord, payload_digest
from edgeseq_core.snapshots.registry import SnapshotRegistry

log = structlog.get_logger(__name__)

SETTINGS_EVERY_S = 1.0
RETRY_FIRST_S, RETRY_MOST_S = 0.25, 10.0  # a champion that could not be loaded is tried again
SKIPPED_MOST = 64  # champions between two polls whose arrivals are looked up


@dataclass
class _Failure:
    snapshot_id: str
    wait_s: float
    retry_s: float


class _Since(NamedTuple):
    """Of the snapshot that serves: the last step it learnt, and since when it serves (ms)."""

    step: int
    since_ms: int


class SnapshotWatch:
    """One poll is one round trip while nothing changes; `run` polls until it is stopped."""

    def __init__(
        self,
        engine: Engine,
        residents: Residents,
        registry: SnapshotRegistry,
        store: ReplayBuffer,
        *,
        partitions: Sequence[int],
        clock: Clock,
        meter: Meter | None = None,
    ) -> None:
        self._base = engine.base_digest
        self._residents = residents
        self._registry = registry
        self._store = store
        self._partitions = tuple(partitions)
        self._clock = clock
        self._meter = meter or Meter()
        self._started_ms = clock.wall_ms()
        self._settings: dict[str, TaskSettings] = {}
        self._settings_due_s = 0.0
        self._failures: dict[str, _Failure] = {}
        self._serving: dict[str, _Since] = {}
        self._passed: dict[str, str] = {}  # the champion of another base that was passed over
        self._foreign: dict[str, str] = {}  # task -> the base that it was said of
        self._newest_step: dict[str, int] = {}  # of the snapshots whose freshness was observed
        self._store_failed = False
        self.ready = False  # every champion of a first complete poll was looked at

    def settings(self, task: str) -> TaskSettings:
        """What an operator set for a task; the defaults for one that is unknown."""
        return self._settings.get(task, TaskSettings())

    def abstain_below(self, task: str) -> float:
        """The confidence under which a reply of the task abstains."""
        return self.settings(task).abstain_below

    def has_memory(self, task: str) -> bool:
        """Whether the task's corrected sources are answered from memory."""
        return self.settings(task).memory

    def cannot_load(self, task: str) -> bool:
        """Whether the task has a champion that failed to load the last time, or is of another base."""
        return task in self._failures or task in self._passed

    def run(self, stop: threading.Event, *, poll_ms: float, beat: Callable[[], None]) -> None:
        """Poll and load what is asked for until ``stop`` is set.

        An unreachable store is waited for: what is held serves on, requests of cold tasks get an error.
        """
        while not stop.is_set():
            try:
                self.poll()
                self._store_failed = False
                beat()
                self._grant_wishes(stop, poll_ms / 1000)
            except StoreError as error:
                if not self._store_failed:
                    log.warning("the champions cannot be read; what serves stays", error=str(error))
                self._store_failed = True
                self._residents.cannot_reach_store()
                beat()
                stop.wait(poll_ms / 1000)

    def _grant_wishes(self, stop: threading.Event, seconds: float) -> None:
        """Load what is asked for, for so long."""
        until_s = self._clock.monotonic() + seconds
        while (left_s := until_s - self._clock.monotonic()) > 0 and not stop.is_set():
            wish = self._residents.next_wish(left_s)
            if wish is None:
                return
            self.grant(wish)

    def grant(self, wish: Wish) -> None:
        """Load a cold task, or read its place; raises StoreError."""
        task = wish.task
        snapshot_id = self._residents.snapshot_id(task)
        if snapshot_id is None:
            return
        try:
            payload = self._read(
                task, self._registry.record(task, snapshot_id).manifest, snapshot_id
            )
            if wish.whole:
                self._residents.load(task, snapshot_id, payload)
            else:
                self._residents.place(task, payload)
        except StoreError:
            raise
        except Exception as error:
            self.poll()  # the champion may have moved on since, and the bytes be gone
            if self._residents.snapshot_id(task) == snapshot_id:
                self._residents.drop(task)
                self._meter.cold_loads_failed(1)
                self._failed(task, snapshot_id, error, 0.0)

    def poll(self) -> list[str]:
        """Look once; returns the snapshot ids swapped in.  Raises StoreError."""
        champions = self._registry.champions(self._partitions)
        swapped = []
        for task, snapshot_id in champions.items():
            looked_at = snapshot_id in (self._residents.snapshot_id(task), self._passed.get(task))
            if not looked_at and self._swap(task, snapshot_id):
                swapped.append(snapshot_id)
        known = self._serving.keys() | self._failures.keys() | self._passed.keys()
        for task in known - champions.keys():
            self._drop(task)
        if self._clock.monotonic() >= self._settings_due_s:
            self._refresh()
        self.ready = True
        return swapped

    # --- one task ---------------------------------------------------------------------------------
    def _swap(self, task: str, snapshot_id: str) -> bool:
        failure = self._failures.get(task)
        known_bad = failure is not None and failure.snapshot_id == snapshot_id
        if failure is not None and known_bad and self._clock.monotonic() < failure.retry_s:
            return False
        try:
            record = self._registry.record(task, snapshot_id)
            if record.manifest.base != self._base:
                self._wait_for_base(record.manifest)
                return False
            # What failed before is tried whole: noted, it would fail whoever asks for it.
            wanted = known_bad or self._residents.is_held(task)
            if wanted or self._residents.has_room(record.manifest.payload_bytes):
                payload = self._read(task, record.manifest, snapshot_id)
                self._residents.load(task, snapshot_id, payload)
            else:
                _check(task, record.manifest, snapshot_id)
                self._residents.note(task, snapshot_id)
        except StoreError:
            raise
        except Exception as error:
            self._failed(task, snapshot_id, error, failure.wait_s if failure and known_bad else 0.0)
            return False
        for notes in (self._failures, self._passed, self._foreign):
            notes.pop(task, None)
        former = self._serving.get(task)
        since_ms = record.created_ms if record.promoted_ms is None else record.promoted_ms
        self._serving[task] = _Since(record.manifest.step, since_ms)
        self._meter.swap(task)
        held = self._residents.is_held(task)
        log.info("snapshot swapped in", task=task, snapshot_id=snapshot_id, held=held)
        self._observe(task, record, former)
        return True

    def _read(self, task: str, manifest: SnapshotManifest, snapshot_id: str) -> bytes:
        """The int8 bytes, verified."""
        _check(task, manifest, snapshot_id)
        payload = self._registry.payload(manifest)
        if payload_digest(payload) != manifest.payload_digest:
            raise SnapshotError(f"the bytes of snapshot {snapshot_id} do not match their manifest")
        return payload

    def _wait_for_base(self, manifest: SnapshotManifest) -> None:
        """What serves stays until this predictor is started with the base, or the base is changed back."""
        task = manifest.task
        self._failures.pop(task, None)
        self._passed[task] = manifest.snapshot_id
        if self._foreign.get(task) == manifest.base:
            return
        self._foreign[task] = manifest.base
        self._meter.swap_failed(task)
        log.warning(
            "the champion belongs to another base; what serves stays: start with its base",
            task=task,
            snapshot_id=manifest.snapshot_id,
            base=manifest.base[:12],
            own_base=self._base[:12],
            serving=self._residents.snapshot_id(task),
        )

    def _failed(self, task: str, snapshot_id: str, error: Exception, waited_s: float) -> None:
        wait_s = min(RETRY_MOST_S, max(RETRY_FIRST_S, 2 * waited_s))
        self._failures[task] = _Failure(snapshot_id, wait_s, self._clock.monotonic() + wait_s)
        self._meter.swap_failed(task)
        log.error(
            "a champion cannot be loaded; the old snapshot serves on",
            task=task,
            snapshot_id=snapshot_id,
            serving=self._residents.snapshot_id(task),
            error=str(error),
        )

    def _drop(self, task: str) -> None:
        self._residents.drop(task)
        for notes in (self._serving, self._failures, self._passed, self._foreign):
            notes.pop(task, None)
        log.warning("a task has no champion any more and is not served", task=task)

    # --- what people see --------------------------------------------------------------------------
    def _observe(self, task: str, record: SnapshotRecord, former: _Since | None) -> None:
        """Freshness of what was just learnt: not of snapshots from before the start, nor twice."""
        newest = self._newest_step.get(task, former.step if former else 0)
        if record.manifest.step <= newest:  # a rollback brings back nothing new
            return
        self._newest_step[task] = record.manifest.step
        now_ms = self._clock.wall_ms()
        for served in (record, *self._skipped(task, record, newest)):
            if served.promoted_ms is None or served.promoted_ms < self._started_ms:
                continue
            for arrived_ms in served.arrivals_ms:
                self._meter.freshness(task, max(0, now_ms - arrived_ms) / 1000)

    def _skipped(self, task: str, record: SnapshotRecord, newest: int) -> list[SnapshotRecord]:
        """Champions that came and went between two polls: their pairs are served only now."""
        skipped: list[SnapshotRecord] = []
        parent = record.manifest.parent
        while parent is not None and len(skipped) < SKIPPED_MOST:
            try:
                ancestor = self._registry.record(task, parent)
            except SnapshotError:
                break
            since_start = (ancestor.promoted_ms or 0) >= self._started_ms
            if ancestor.manifest.step <= newest or not since_start:
                break
            skipped.append(ancestor)
            parent = ancestor.manifest.parent
        return skipped

    def _refresh(self) -> None:
        settings: dict[str, TaskSettings] = {}
        for partition in self._partitions:
            settings.update(self._store.tasks(partition))
        self._settings = settings
        now_ms = self._clock.wall_ms()
        for task, served in self._serving.items():
            self._meter.snapshot_age(task, max(0, now_ms - served.since_ms) / 1000)
        self._settings_due_s = self._clock.monotonic() + SETTINGS_EVERY_S


def _check(task: str, manifest: SnapshotManifest, snapshot_id: str) -> None:
    if manifest.task != task or manifest.snapshot_id != snapshot_id:
        raise SnapshotError(f"the manifest under {snapshot_id} describes another snapshot")
