"""Which of the served tasks the engine holds: those asked last, under a byte budget.

The others are *cold*: of them only the id of the snapshot that serves is kept, and the place for `infer`
once it was needed.  Asking for a cold task is a wish; its requests wait in the queue, and others pass
them.  The thread that follows the champions grants wishes; any thread may ask.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import NamedTuple

from edgeseq_core.clock import Clock
from edgeseq_core.engine import Engine
from edgeseq_core.serving.admission import Presence
from edgeseq_core.serving.meter import Meter

AWAY_S = 1.0  # a store that failed is left alone for so long: requests of cold tasks fail at once
PACKED = 2.0  # bytes in memory for one of a snapshot, before any was loaded


class Wish(NamedTuple):
    """A cold task that somebody waits for: all of its snapshot, or only its place."""

    task: str
    whole: bool


class Residents(Presence):
    """Who serves, and which of them the engine holds.

    A request's task may not be let go between its load and its answer: `taken` and `hold` say which
    those are.  So more than the budget is held by one task at most, or by the batch in hand.
    """

    def __init__(
        self, engine: Engine, *, budget_bytes: int, clock: Clock, meter: Meter | None = None
    ) -> None:
        self._engine = engine
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._meter = meter or Meter()
        self._changed = threading.Condition()
        self._held: OrderedDict[str, int] = OrderedDict()  # -> bytes; asked longest ago first
        self._cold: dict[str, str] = {}  # -> the snapshot that serves
        self._unplaced: dict[str, None] = {}  # cold ones whose place is not known
        self._wishes: dict[str, float] = {}  # -> since when (s); oldest first
        self._places_wished = False
        self._in_hand: set[str | None] = set()  # of the batch that is being answered
        self._fresh: set[str] = set()  # loaded by a wish that no batch has taken up yet
        self._packed = PACKED  # the most bytes in memory that one of a snapshot took
        self._away_until_s = 0.0
        self._wake: Callable[[], None] = lambda: None

    # --- who asks ---------------------------------------------------------------------------------
    def snapshot_id(self, task: str) -> str | None:
        """The snapshot that serves a task, held or not."""
        with self._changed:  # else a task that is loaded just now could be neither
            return self._engine.snapshot_id(task) or self._cold.get(task)

    def is_cold(self, task: str) -> bool:
        """Whether a task that is served must be loaded first."""
        return task in self._cold

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever a blocked task may be no more."""
        self._wake = wake

    def blocked(self, tasks: Collection[str | None]) -> Collection[str | None]:
        """The tasks that must be loaded first, which this wishes; for None, places that must be read."""
        with self._changed:
            if not self._cold:
                self._touch(tasks)
                return ()
            away = self.store_is_away()
            found = {task for task in tasks if not away and self._is_missing(task)}
            self._touch(tasks)
            for task in tasks:
                if task in found:
                    self._wish(task)
            if found:
                self._changed.notify_all()
            return found

    def taken(self, batch: Collection[str | None], waiting: Collection[str | None]) -> None:
        """A batch of these tasks is answered from now on, the one before it is done."""
        with self._changed:
            self._in_hand = set(batch)
            self._fresh = {task for task in self._fresh if task in waiting} - self._in_hand
            if self._wishes:
                self._changed.notify_all()

    def hold(self, task: str | None) -> bool:
        """Keep a task in the engine until the next batch is taken; False where it is cold (now wished)."""
        with self._changed:
            if task in self._cold:
                self._wish(task)
                self._changed.notify_all()
                return False
            self._in_hand.add(task)
            self._touch((task,))
            return True

    def store_is_away(self) -> bool:
        """Whether the store failed a moment ago: what is cold cannot be loaded."""
        return self._clock.monotonic() < self._away_until_s

    def lacks_places(self) -> bool:
        """Whether `infer` does not know every task that is served."""
        return bool(self._unplaced)

    def _is_missing(self, task: str | None) -> bool:
        return task in self._cold if task is not None else bool(self._unplaced)

    def _wish(self, task: str | None) -> None:
        if task is None:
            self._places_wished = True
        else:
            self._wishes.setdefault(task, self._clock.monotonic())

    def _touch(self, tasks: Collection[str | None]) -> None:
        for task in tasks:
            if task is not None and task in self._held:
                self._held.move_to_end(task)

    # --- the thread that loads --------------------------------------------------------------------
    def is_held(self, task: str) -> bool:
        """Whether the engine holds the task's snapshot."""
        return task in self._held

    def has_room(self, payload_bytes: int) -> bool:
        """Whether a snapshot of this size fits without letting another go."""
        with self._changed:
            return self._bytes() + payload_bytes * self._packed <= self._budget_bytes

    def load(self, task: str, snapshot_id: str, payload: bytes) -> None:
        """Serve a task with these bytes, and let go of who was asked longest ago; raises SnapshotError."""
        self._engine.swap(task, snapshot_id, payload)
        held_bytes = self._engine.held_bytes(task)
        with self._changed:
            self._packed = max(self._packed, held_bytes / len(payload))
            self._held[task] = held_bytes
            self._cold.pop(task, None)
            self._unplaced.pop(task, None)
            wished_s = self._wishes.pop(task, None)
            if wished_s is not None:
                self._fresh.add(task)
                self._meter.cold_load(self._clock.monotonic() - wished_s)
            self._let_go()
        self._report()

    def note(self, task: str, snapshot_id: str) -> None:
        """A task that is not held is served by this snapshot, from its next load on."""
        with self._changed:
            self._engine.drop(task)  # of the former snapshot nothing stays, its place included
            self._cold[task] = snapshot_id
            self._unplaced[task] = None
        self._report()

    def place(self, task: str, payload: bytes) -> None:
        """Let `infer` know a cold task; raises SnapshotError."""
        self._engine.know(task, payload)
        with self._changed:
            self._unplaced.pop(task, None)
        self._report()

    def drop(self, task: str) -> None:
        """Serve a task no more."""
        with self._changed:
            self._engine.drop(task)
            for notes in (self._held, self._cold, self._unplaced, self._wishes):
                notes.pop(task, None)
        self._report()

    def cannot_reach_store(self) -> None:
        """What was wished cannot be had now: those who wait get an error."""
        with self._changed:
            self._away_until_s = self._clock.monotonic() + AWAY_S
            self._meter.cold_loads_failed(len(self._wishes) + self._places_wished)
            self._wishes.clear()
            self._places_wished = False
        self._wake()

    def next_wish(self, timeout_s: float) -> Wish | None:
        """What to load next, whole tasks before places; None after ``timeout_s`` seconds."""
        with self._changed:
            too_much = self._let_go()
        if too_much:  # was in hand when there was no room for it any more
            self._report()
        with self._changed:
            return self._changed.wait_for(self._choose, timeout_s)

    def _choose(self) -> Wish | None:
        # Where all that is held must not be let go, a batch is answered first.
        kept = sum(self._held.get(task, 0) for task in self._fresh)
        if self._wishes and (not self._fresh or kept < self._budget_bytes):
            return Wish(next(iter(self._wishes)), whole=True)
        if self._places_wished and self._unplaced:
            return Wish(next(iter(self._unplaced)), whole=False)
        return None

    def _let_go(self) -> bool:
        """Back under the budget, but for what is in use and who was asked last; whether any had to go."""
        over_bytes, before = self._bytes() - self._budget_bytes, len(self._held)
        for task in list(self._held)[:-1]:
            if over_bytes <= 0:
                break
            if task in self._in_hand or task in self._fresh:
                continue
            serving = self._engine.snapshot_id(task)
            assert serving is not None  # only this thread changes what is held
            self._cold[task] = serving
            over_bytes -= self._held.pop(task)
            self._engine.unload(task)
        return len(self._held) < before

    def _bytes(self) -> int:
        return sum(self._held.values())

    def _report(self) -> None:
        with self._changed:
            self._places_wished = self._places_wished and bool(self._unplaced)
            held, cold, held_bytes = len(self._held), len(self._cold), self._bytes()
        self._meter.residents(held, cold, held_bytes)
        self._wake()
