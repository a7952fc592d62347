"""Many tasks, little memory, champions that change: every request gets one answer, of a champion."""

from __future__ import annotations

import random
import threading
import time

import pytest

from edgeseq_core.clock import SystemClock
from edgeseq_core.messages import Reply
from edgeseq_core.serving.admission import Admission
from edgeseq_core.serving.batcher import Batcher
from edgeseq_core.serving.predictor import Predictor
from edgeseq_core.serving.queued import QueuedRequest
from edgeseq_core.serving.replies import MemoryReplyCache
from edgeseq_core.serving.residents import Residents
from edgeseq_core.settings import PredictorSettings
from edgeseq_core.testing.engine import fake_payload
from tests.serving.examples import request
from tests.serving.test_watch import World

TASKS = [f"t{n:02}" for n in range(40)]
SIZE = len(fake_payload("t00", "m1"))


class Loop(World):
    """The threads that load and answer, as the service has them."""

    def __init__(self, budget_bytes: int) -> None:
        super().__init__()
        clock = SystemClock()
        self.residents = Residents(self.engine, budget_bytes=budget_bytes, clock=clock)
        self.watch = self.watch_of(self.residents)
        self.watch._clock = clock  # time is real here
        self.admission = Admission(64, clock, self.residents)
        self.predictor = Predictor(
            self.engine,
            cache=MemoryReplyCache(clock, window_s=600),
            clock=clock,
            residents=self.residents,
            cannot_load=self.watch.cannot_load,
            settings=PredictorSettings(),
        )
        self.replies: dict[str, list[Reply]] = {}
        self.most_held = 0
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._follow, daemon=True),
            threading.Thread(target=self._answer, daemon=True),
        ]

    def _follow(self) -> None:
        self.watch.run(self.stop, poll_ms=5, beat=lambda: None)

    def _answer(self) -> None:
        batcher = Batcher(self.admission, max_rows=4, max_wait_ms=1, clock=SystemClock())
        while not self.admission.closed or self.admission.size():
            batch = batcher.next(idle_s=0.05).batch
            found = self.predictor.answer(batch)
            self.admission.put_back([one for one in found if isinstance(one, QueuedRequest)])
            for queued, reply in zip(batch, found, strict=True):
                if isinstance(reply, Reply):
                    self.replies.setdefault(queued.request_id, []).append(reply)
            self.most_held = max(self.most_held, sum(map(self.engine.held_bytes, TASKS)))

    def offer(self, task: str | None, source: str) -> str:
        """Ask as soon as the queue has room."""
        asked = self.predictor.receive(request(source, task=task))
        while self.admission.offer([asked]):
            time.sleep(0.001)
        return asked.request_id


@pytest.mark.timeout(60)
@pytest.mark.parametrize("room", [0.5, 3, 9])
def test_every_request_is_answered_by_a_champion(room: float) -> None:
    loop, draw = Loop(int(room * SIZE)), random.Random(1)
    champions = {task: {loop.promote(task, 1)} for task in TASKS}
    loop.watch.poll()
    for thread in loop.threads:
        thread.start()
    asked: dict[str, str] = {}
    for turn in range(300):
        task = draw.choice(TASKS)
        if turn % 10 == 0:
            champions[task].add(loop.promote(task, 2 + turn))
        named = turn % 7 != 0
        asked[loop.offer(task if named else None, f"{task}:x")] = task
    loop.admission.close()
    loop.threads[1].join(40)
    loop.stop.set()
    loop.threads[0].join(10)
    assert not any(thread.is_alive() for thread in loop.threads)
    assert loop.replies.keys() == asked.keys()
    for name, task in asked.items():
        (reply,) = loop.replies[name]
        assert reply.error is None, reply.error
        assert (reply.task, reply.snapshot_id in champions[task]) == (task, True)
    assert (
        loop.most_held <= max(room, 1) * SIZE + 8 * SIZE + 100
    )  # two batches' tasks beyond it at most
