"""The queue: order, no starvation, bounds, expiry, cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import pytest

from edgeseq_core.clock import SystemClock
from edgeseq_core.serving.admission import CANCEL_WINDOW_S, Admission, Presence
from edgeseq_core.serving.queued import QueuedRequest
from edgeseq_core.testing.clock import FakeClock
from tests.serving.examples import SENT_MS, queued


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall_ms=SENT_MS)


@pytest.fixture
def admission(clock: FakeClock) -> Admission:
    return Admission(64, clock)


def ids(requests: list[QueuedRequest]) -> list[str]:
    return [one.request_id for one in requests]


def take_all(admission: Admission, rows: int = 1) -> list[str]:
    order: list[str] = []
    while batch := admission.take(rows).batch:
        order.extend(ids(batch))
    return order


def test_urgent_classes_go_first_whenever_they_came(admission: Admission, clock: FakeClock) -> None:
    for priority in ("bulk", "normal", "interactive"):
        admission.offer([queued(clock, request_id=priority, priority=priority)])
    assert take_all(admission) == ["interactive", "normal", "bulk"]


def test_inside_a_class_the_earliest_deadline_goes_first(
    admission: Admission, clock: FakeClock
) -> None:
    admission.offer(
        [
            queued(clock, request_id="none"),
            queued(clock, request_id="late", timeout_ms=9_000),
            queued(clock, request_id="soon", deadline_ms=SENT_MS + 5_000),
        ]
    )
    assert take_all(admission) == ["soon", "late", "none"]


def test_the_first_of_deadline_and_timeout_counts(clock: FakeClock) -> None:
    both = queued(clock, deadline_ms=SENT_MS + 5_000, timeout_ms=2_000)
    assert both.expires_s == 2.0


def test_lower_classes_are_served_under_endless_urgent_load(clock: FakeClock) -> None:
    admission = Admission(64, clock)
    admission.offer([queued(clock, request_id=f"bulk{n}", priority="bulk") for n in range(3)])
    admission.offer([queued(clock, request_id=f"normal{n}", priority="normal") for n in range(8)])
    order: list[str] = []
    for _ in range(100):
        admission.offer([queued(clock, request_id="i") for _ in range(2)])
        order.extend(ids(admission.take(1).batch))
    assert order.count("i") > 60
    assert {"bulk0", "bulk1", "bulk2", "normal7"} <= set(order)
    assert order.index("normal0") < order.index("bulk0")


def test_a_full_queue_refuses_and_keeps_room_for_urgent_ones(clock: FakeClock) -> None:
    admission = Admission(8, clock)
    bulk = [queued(clock, request_id=f"b{n}", priority="bulk") for n in range(6)]
    assert ids(admission.offer(bulk)) == ["b4", "b5"]  # half of the queue is bulk's
    urgent = [queued(clock, request_id=f"i{n}") for n in range(6)]
    assert ids(admission.offer(urgent)) == ["i4", "i5"]
    assert admission.room("interactive") == admission.room("bulk") == 0
    admission.take(1)
    assert (admission.room("interactive"), admission.room("bulk")) == (1, 0)


def test_expired_requests_leave_before_compute(admission: Admission, clock: FakeClock) -> None:
    admission.offer([queued(clock, request_id="a", timeout_ms=100), queued(clock, request_id="b")])
    clock.advance(0.1)
    taken = admission.take(4)
    assert (ids(taken.batch), ids(taken.expired)) == (["b"], ["a"])


def test_cancel_reaches_a_queued_a_running_and_a_later_request(
    admission: Admission, clock: FakeClock
) -> None:
    admission.offer([queued(clock, request_id="queued"), queued(clock, request_id="other")])
    admission.cancel("queued")
    admission.cancel("later")
    taken = admission.take(4)
    assert (ids(taken.batch), ids(taken.cancelled)) == (["other"], ["queued"])
    admission.cancel("other")  # it is being computed now
    assert admission.is_cancelled("other")
    clock.advance(CANCEL_WINDOW_S - 1)
    admission.offer([queued(clock, request_id="later")])
    assert ids(admission.take(4).cancelled) == ["later"]


def test_a_cancel_is_forgotten_after_its_window(admission: Admission, clock: FakeClock) -> None:
    admission.cancel("r")
    clock.advance(CANCEL_WINDOW_S)
    admission.offer([queued(clock, request_id="r")])
    assert ids(admission.take(1).batch) == ["r"]


def test_a_batch_prefers_sources_of_like_length(admission: Admission, clock: FakeClock) -> None:
    lengths = [10, 40, 11, 39, 9, 41, 10, 38]
    admission.offer(
        [queued(clock, request_id=f"{n}-{at}", source="x" * n) for at, n in enumerate(lengths)]
    )
    first = admission.take(4).batch
    assert sorted(one.source_tokens for one in first) == [9, 10, 10, 11]
    assert sorted(one.source_tokens for one in admission.take(4).batch) == [38, 39, 40, 41]


def test_the_first_in_line_and_the_urgent_are_never_passed_over_for_length(
    admission: Admission, clock: FakeClock
) -> None:
    admission.offer(
        [queued(clock, request_id=f"short{n}", source="x", timeout_ms=1_000) for n in range(6)]
    )
    admission.offer([queued(clock, request_id="long", source="x" * 60, timeout_ms=200)])
    assert ids(admission.take(2).batch) == ["long", "short0"]
    admission.offer([queued(clock, request_id="odd", source="x" * 60, timeout_ms=100)])
    admission.offer([queued(clock, request_id="odder", source="x" * 30, timeout_ms=150)])
    assert ids(admission.take(2).batch) == ["odd", "odder"]


def test_waiting_ends_when_the_queue_closes(admission: Admission) -> None:
    assert not admission.wait(0.01)
    admission.close()
    assert admission.wait(20)


# --- tasks that must be loaded first ------------------------------------------------------------------


class Cold(Presence):
    """Blocks what a test says, and keeps what it was told."""

    def __init__(self, *tasks: str | None) -> None:
        self.tasks: set[str | None] = set(tasks)
        self.told: list[tuple[set[str | None], set[str | None]]] = []
        self.wake: Callable[[], None] = lambda: None

    def subscribe(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def blocked(self, tasks: Collection[str | None]) -> Collection[str | None]:
        return self.tasks & set(tasks)

    def taken(self, batch: Collection[str | None], waiting: Collection[str | None]) -> None:
        self.told.append((set(batch), set(waiting)))


def test_requests_of_a_blocked_task_are_passed_and_keep_their_place(clock: FakeClock) -> None:
    cold = Cold("cold", None)
    admission = Admission(64, clock, cold)
    admission.offer([queued(clock, request_id="first", task="cold", timeout_ms=900)])
    admission.offer([queued(clock, request_id="nameless", task=None)])
    admission.offer([queued(clock, request_id=f"hot{n}", task="hot") for n in range(3)])
    assert take_all(admission, 2) == ["hot0", "hot1", "hot2"]
    assert (admission.ready(), admission.size()) == ((0, None), 2)
    assert cold.told[0] == ({"hot"}, {"cold", None, "hot"})
    assert cold.told[-1] == (set(), {"cold", None})
    admission.offer([queued(clock, request_id="later", task="hot")])
    cold.tasks.clear()
    assert take_all(admission) == ["first", "nameless", "later"]


def test_a_blocked_request_expires_and_is_cancelled_as_others_are(clock: FakeClock) -> None:
    admission = Admission(64, clock, Cold("cold"))
    admission.offer([queued(clock, request_id="late", task="cold", timeout_ms=100)])
    admission.offer([queued(clock, request_id="gone", task="cold")])
    admission.cancel("gone")
    clock.advance(0.1)
    taken = admission.take(8)
    assert (ids(taken.expired), ids(taken.cancelled), taken.batch) == (["late"], ["gone"], [])
    assert admission.size() == 0


def test_blocked_requests_count_in_the_queue(clock: FakeClock) -> None:
    admission = Admission(4, clock, Cold("cold"))
    admission.offer([queued(clock, task="cold") for _ in range(4)])
    assert ids(admission.offer([queued(clock, request_id="x", task="hot")])) == ["x"]


def test_who_sleeps_is_woken_when_a_task_was_loaded() -> None:
    clock, cold = SystemClock(), Cold("cold")
    admission = Admission(4, clock, cold)
    admission.offer([queued(clock, task="cold")])
    assert not admission.wait(0.01)

    def loaded() -> None:
        cold.tasks.clear()
        cold.wake()

    timer = threading.Timer(0.05, loaded)
    timer.start()
    assert admission.wait(20)
    timer.join()


def test_a_closed_queue_waits_for_what_is_blocked() -> None:
    clock, cold = SystemClock(), Cold("cold")
    admission = Admission(4, clock, cold)
    admission.offer([queued(clock, task="cold")])
    admission.close()
    assert not admission.wait(0.01)
    cold.tasks.clear()
    assert admission.wait(0.01)


def test_what_is_put_back_waits_on_whatever_the_room(clock: FakeClock) -> None:
    admission = Admission(1, clock)
    admission.offer([queued(clock, request_id="a")])
    taken = admission.take(1).batch
    admission.offer([queued(clock, request_id="b")])
    admission.put_back(taken)
    assert sorted(take_all(admission)) == ["a", "b"]
