"""Micro-batches: at once when idle, together when busy, never long."""

from __future__ import annotations

import threading
import time

from edgeseq_core.clock import SystemClock
from edgeseq_core.serving.admission import Admission
from edgeseq_core.serving.batcher import Batcher
from edgeseq_core.testing.clock import FakeClock
from tests.serving.examples import queued

LONG_MS = 20_000  # far beyond a test's time-out when it is really waited for


def test_one_request_goes_out_at_once_when_the_engine_is_idle() -> None:
    clock = SystemClock()
    admission = Admission(64, clock)
    batcher = Batcher(admission, max_rows=16, max_wait_ms=LONG_MS, clock=clock)
    timer = threading.Timer(0.05, lambda: admission.offer([queued(clock)]))
    timer.start()
    assert len(batcher.next(idle_s=20).batch) == 1
    timer.join()


def test_requests_that_arrive_together_go_together_even_when_idle() -> None:
    clock = SystemClock()
    admission = Admission(64, clock)
    batcher = Batcher(admission, max_rows=16, max_wait_ms=LONG_MS, clock=clock)
    timer = threading.Timer(0.05, lambda: admission.offer([queued(clock) for _ in range(5)]))
    timer.start()
    assert len(batcher.next(idle_s=20).batch) == 5
    timer.join()


def test_a_full_batch_never_waits_and_tasks_are_mixed() -> None:
    clock = FakeClock()
    admission = Admission(64, clock)
    admission.offer([queued(clock, task=f"t{n % 3}") for n in range(9)])
    batch = Batcher(admission, max_rows=8, max_wait_ms=LONG_MS, clock=clock).next(idle_s=0).batch
    assert len(batch) == 8
    assert {one.request.task for one in batch} == {"t0", "t1", "t2"}


def test_who_waited_long_enough_behind_a_busy_engine_waits_no_more() -> None:
    clock = FakeClock()
    admission = Admission(64, clock)
    admission.offer([queued(clock)])
    clock.advance(LONG_MS / 1000)
    batcher = Batcher(admission, max_rows=8, max_wait_ms=LONG_MS, clock=clock)
    assert len(batcher.next(idle_s=0).batch) == 1


def test_behind_a_busy_engine_a_batch_fills_while_it_waits() -> None:
    clock = SystemClock()
    admission = Admission(64, clock)
    admission.offer([queued(clock)])
    timer = threading.Timer(0.05, lambda: admission.offer([queued(clock) for _ in range(3)]))
    timer.start()
    batcher = Batcher(admission, max_rows=4, max_wait_ms=LONG_MS, clock=clock)
    assert len(batcher.next(idle_s=0).batch) == 4
    timer.join()


def test_no_request_is_no_batch() -> None:
    clock = FakeClock()
    begun = time.monotonic()
    batcher = Batcher(Admission(8, clock), max_rows=4, max_wait_ms=2, clock=clock)
    assert not batcher.next(idle_s=0.01)
    assert time.monotonic() - begun < 10
