"""The bounded queue in front of the engine: who is let in, who goes next, who is too late.

Order: interactive before normal before bulk, earliest deadline first inside a class.  A lower
class that was passed over often enough gets the next place, so none starves.  A class may fill only
its share of the queue, so there is always room for a more urgent one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from edgeseq_core.clock import Clock
from edgeseq_core.messages import Priority
from edgeseq_core.serving.queued import PRIORITIES, QueuedRequest

SHARE: dict[Priority, float] = {"interactive": 1.0, "normal": 0.75, "bulk": 0.5}
PASSED_OVER_LIMIT: dict[Priority, float] = {"interactive": inf, "normal": 4, "bulk": 16}
CANCEL_WINDOW_S = 60.0  # a cancel also stops a request that arrives this much later
CANCELS_KEPT = 10_000
URGENT_S = 0.25  # a request with less time left is never passed over for the sake of its length
LOOK_AHEAD = 4  # requests considered for each place in a batch


@dataclass(frozen=True)
class Taken:
    """What left the queue: to be computed, and to be answered by a typed error."""

    batch: list[QueuedRequest] = field(default_factory=list)
    expired: list[QueuedRequest] = field(default_factory=list)
    cancelled: list[QueuedRequest] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.batch or self.expired or self.cancelled)


class Presence:
    """Every task can be answered at any time; a predictor that loads on demand passes a subclass."""

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever a blocked task may be no more."""

    def blocked(self, _tasks: Collection[str | None]) -> Collection[str | None]:
        """Tasks (None: of requests that name none) that cannot be answered now, but soon."""
        return ()

    def taken(self, batch: Collection[str | None], waiting: Collection[str | None]) -> None:
        """A batch of these tasks was taken, so the one before it is done; others wait on."""


class Admission:
    """The queue; safe to use from several threads.  Requests of a blocked task are passed by others."""

    def __init__(self, limit: int, clock: Clock, presence: Presence | None = None) -> None:
        self.limit = limit
        self._clock = clock
        self._presence = presence or Presence()
        self._presence.subscribe(self._wake)
        self._changed = threading.Condition()
        self._waiting: dict[Priority, list[QueuedRequest]] = {name: [] for name in PRIORITIES}
        self._passed_over: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)
        self._cancels: OrderedDict[str, float] = (
            OrderedDict()
        )  # request id -> when it was cancelled
        self._closed = False

    # --- in ---------------------------------------------------------------------------------------
    def offer(self, requests: Collection[QueuedRequest]) -> list[QueuedRequest]:
        """Queue requests that arrived together; returns those refused as ``overloaded``."""
        refused = []
        with self._changed:
            for queued in requests:
                if self._room(queued.priority):
                    self._waiting[queued.priority].append(queued)
                else:
                    refused.append(queued)
            self._ready()  # so that a task which must be loaded first is, while others are answered
            self._changed.notify_all()
        return refused

    def put_back(self, requests: Collection[QueuedRequest]) -> None:
        """Let requests that were taken wait on: their task, known only since, must be loaded first."""
        with self._changed:
            for queued in requests:
                self._waiting[queued.priority].append(queued)

    def room(self, priority: Priority) -> int:
        """How many more requests of a class would be let in now."""
        with self._changed:
            return self._room(priority)

    def _room(self, priority: Priority) -> int:
        share = int(self.limit * SHARE[priority]) - len(self._waiting[priority])
        return max(0, min(share, self.limit - self._size()))

    def _size(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _ready(self) -> list[QueuedRequest]:
        """Those that a batch could take up now."""
        waiting = [queued for some in self._waiting.values() for queued in some]
        tasks = dict.fromkeys(queued.request.task for queued in waiting)
        blocked = self._presence.blocked(tasks)
        return [one for one in waiting if one.request.task not in blocked] if blocked else waiting

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def size(self) -> int:
        """Waiting requests, those of a blocked task among them."""
        with self._changed:
            return self._size()

    def depth(self) -> dict[Priority, int]:
        """Waiting requests by class."""
        with self._changed:
            return {name: len(waiting) for name, waiting in self._waiting.items()}

    def close(self) -> None:
        """Let nobody wait for requests any more; what is queued can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    # --- cancel -----------------------------------------------------------------------------------
    def cancel(self, request_id: str) -> None:
        """Stop a request by its id: queued, computed just now, or arriving within the window."""
        with self._changed:
            now_s = self._clock.monotonic()
            self._cancels[request_id] = now_s
            self._cancels.move_to_end(request_id)
            while self._cancels:
                oldest = next(iter(self._cancels))
                if len(self._cancels) <= CANCELS_KEPT and self._fresh(self._cancels[oldest], now_s):
                    break
                del self._cancels[oldest]
            self._changed.notify_all()

    def is_cancelled(self, request_id: str) -> bool:
        """Whether the id was cancelled within the window; cheap enough for every decode step."""
        at_s = self._cancels.get(request_id)
        return at_s is not None and self._fresh(at_s, self._clock.monotonic())

    def _fresh(self, at_s: float, now_s: float) -> bool:
        return now_s - at_s < CANCEL_WINDOW_S

    # --- out --------------------------------------------------------------------------------------
    def wait(self, timeout_s: float, *, above: int = 0) -> bool:
        """Sleep until more than ``above`` can be taken, or nothing will come; False after the time-out."""

        def over() -> bool:
            ready = len(self._ready())
            return ready > above or (self._closed and ready == self._size())

        with self._changed:
            return self._changed.wait_for(over, timeout_s)

    def ready(self) -> tuple[int, float | None]:
        """How many requests can be taken, and when the one that waits longest was received."""
        with self._changed:
            times = [queued.received_s for queued in self._ready()]
            return len(times), min(times, default=None)

    def take(self, rows: int) -> Taken:
        """At most ``rows`` requests to compute together, and all that are too late or cancelled.

        The first of a class always goes; the rest of its places prefer the sources closest in
        length to the first of the batch, because a batch costs as much as its longest row.
        Requests of a blocked task keep their place.
        """
        with self._changed:
            now_s = self._clock.monotonic()
            taken = Taken()
            for name, waiting in self._waiting.items():
                keep = []
                for queued in waiting:
                    if queued.request_id in self._cancels and self.is_cancelled(queued.request_id):
                        taken.cancelled.append(queued)
                    elif queued.expired(now_s):
                        taken.expired.append(queued)
                    else:
                        keep.append(queued)
                keep.sort(key=_earliest_deadline_first)
                self._waiting[name] = keep
            ready: dict[Priority, list[QueuedRequest]] = {name: [] for name in PRIORITIES}
            for queued in self._ready():
                ready[queued.priority].append(queued)
            leader: QueuedRequest | None = None
            for name, places in self._places(rows, ready).items():
                chosen = _alike(ready[name], places, leader, now_s)
                leader = leader or chosen[0]
                taken.batch.extend(chosen)
                gone = set(map(id, chosen))
                self._waiting[name] = [q for q in self._waiting[name] if id(q) not in gone]
            self._presence.taken(
                {queued.request.task for queued in taken.batch},
                {queued.request.task for some in self._waiting.values() for queued in some},
            )
            return taken

    def _places(
        self, rows: int, ready: Mapping[Priority, Sequence[QueuedRequest]]
    ) -> dict[Priority, int]:
        """How many places of a batch each class gets, in the order in which they go."""
        left = {name: len(some) for name, some in ready.items()}
        places: dict[Priority, int] = {}
        for _ in range(min(rows, sum(left.values()))):
            name = self._next_class(left)
            left[name] -= 1
            places[name] = places.get(name, 0) + 1
        return places

    def _next_class(self, left: dict[Priority, int]) -> Priority:
        present = [name for name in PRIORITIES if left[name]]
        starved = (n for n in reversed(present) if self._passed_over[n] >= PASSED_OVER_LIMIT[n])
        name = next(starved, present[0])
        for other in PRIORITIES:
            if other == name or not left[other]:
                self._passed_over[other] = 0
            elif PRIORITIES.index(other) > PRIORITIES.index(name):
                self._passed_over[other] += 1
        return name


def _earliest_deadline_first(queued: QueuedRequest) -> tuple[float, float]:
    return (inf if queued.expires_s is None else queued.expires_s, queued.received_s)


def _alike(
    waiting: Sequence[QueuedRequest], places: int, leader: QueuedRequest | None, now_s: float
) -> list[QueuedRequest]:
    """The first, the urgent, then the closest in length among the next few."""
    window = list(waiting[: places * LOOK_AHEAD])
    length = (leader or window[0]).source_tokens

    def preference(entry: tuple[int, QueuedRequest]) -> tuple[bool, int, int]:
        index, queued = entry
        urgent = queued.expires_s is not None and queued.expires_s - now_s < URGENT_S
        first = index == 0 or urgent
        return (not first, 0 if first else abs(queued.source_tokens - length), index)

    return [queued for _, queued in sorted(enumerate(window), key=preference)[:places]]
