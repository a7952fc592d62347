"""The whole loop on each broker: teach, learn, gate, swap, predict; correct, roll back, pin."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseq_core.client import Client, Prediction
from edgeseq_core.testing.base import write_tiny_base
from tests.brokers import Broker
from tests.faults.deployment import SERVICES, Deployment, wait_for
from tests.faults.history import violations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LEARNING = {  # quick to learn, and to unlearn what a correction says
    "RANK": "2",
    "FRESH_PER_STEP": "16",
    "REPLAY_PER_STEP": "8",
    "LEARNING_RATE": "0.02",
    "WARMUP_STEPS": "2",
    "RECENT_PAIRS": "6",
    "PROBE_PAIRS": "6",
    "GATE_INTERVAL_S": "0.2",
    "REHEARSALS_PER_STEP": "4",
}


class Loop(Deployment):
    """A deployment and the client library's view of it."""

    def __init__(self, bootstrap: str, redis_url: str, base_path: Path, directory: Path) -> None:
        super().__init__(bootstrap, redis_url, base_path, directory, learning=LEARNING)
        self.sdk = Client(settings=self.kafka, producer="erp")

    def close(self) -> None:
        self.sdk.close()
        super().close()

    def learn(self, task: str, answer: str, *, start: int, pairs: int = 96) -> list[str]:
        """Teach one answer to many questions and wait until all is learnt and offered."""
        told = self.sdk.teach(task, [(f"in {n}", answer) for n in range(start, start + pairs)])
        wait_for(lambda: self._is_settled(task, told.pair_ids), "the lesson to be learnt")
        return list(told.pair_ids)

    def _is_settled(self, task: str, pair_ids: tuple[str, ...]) -> bool:
        found = [self.store.outcome(task, "erp", pair_id) for pair_id in pair_ids]
        if not all(one and one.state in ("trained", "held_out") for one in found):
            return False
        return json.loads(self.store.journal(task)[-1])["kind"] == "gate"

    def answer(self, task: str, source: str = "in 77777") -> Prediction:
        prediction = self.sdk.predict(task, source, timeout_s=30)
        assert isinstance(prediction, Prediction)
        return prediction

    def champion(self, task: str) -> str | None:
        return self.registry.status(task).champion


@pytest.fixture(scope="module")
def loop(
    kafka_broker: Broker, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loop]:
    directory = tmp_path_factory.mktemp("loop")
    base_path = write_tiny_base(directory / "tiny.safetensors")
    loop = Loop(kafka_broker.bootstrap, redis_url, base_path, directory)
    try:
        loop.start(*SERVICES)
        yield loop
    finally:
        loop.close()


def test_a_new_task_registers_itself_and_is_answered_right(loop: Loop) -> None:
    assert "greetings" not in loop.tasks()
    pair_ids = loop.learn("greetings", "hello", start=0)
    wait_for(lambda: loop.answer("greetings").target == "hello", "the right answer")
    prediction = loop.answer("greetings")
    assert prediction.snapshot_id == loop.champion("greetings")
    assert not prediction.abstained

    statuses = [loop.sdk.pair_status("greetings", "erp", i, timeout_s=30) for i in pair_ids[:20]]
    trained = [s for s in statuses if s.state == "trained"]
    assert {s.state for s in statuses} <= {"trained", "held_out"}
    assert len(trained) >= 15
    assert all(s.in_champion and s.step > 0 and s.snapshot_id for s in trained)
    promoted = {
        r.manifest.snapshot_id
        for r in loop.registry.history("greetings")
        if r.promoted_ms is not None
    }
    assert {s.snapshot_id for s in trained} <= promoted
    unknown = loop.sdk.pair_status("greetings", "erp", "never-sent", timeout_s=30)
    assert unknown.state == "unknown"


def test_a_correction_passes_the_bulk_that_waits(loop: Loop) -> None:
    loop.learn("greetings", "hello", start=1_000, pairs=16)
    loop.sdk.teach("burst", [(f"in {n}", "bulk") for n in range(600)])
    wait_for(lambda: "burst" in loop.tasks(), "the burst")
    told = loop.sdk.correct("greetings", "in 5", "hello")
    wait_for(
        lambda: (
            (o := loop.store.outcome("greetings", "erp", told)) is not None and o.state == "trained"
        ),
        "the correction",
    )
    own = loop.sdk.correct("burst", "in 5", "bulk")
    wait_for(
        lambda: (o := loop.store.outcome("burst", "erp", own)) is not None and o.state == "trained",
        "the task's own correction",
    )
    steps = [json.loads(line) for line in loop.store.journal("burst")]
    (with_it,) = [s for s in steps if s["kind"] == "step" and s["corrections"]]
    taken = sum(len(s["bulk"]) for s in steps[: steps.index(with_it)] if s["kind"] == "step")
    assert taken < 600  # bulk was still waiting
    status = loop.sdk.pair_status("greetings", "erp", told, timeout_s=30)
    assert status.state == "trained"
    wait_for(lambda: not any(loop.store.waiting(n) for n in range(4)), "the burst to drain")


def test_a_rollback_flips_pins_and_forks_and_unpin_lets_it_promote(loop: Loop) -> None:
    loop.learn("colours", "red", start=0)
    wait_for(lambda: loop.answer("colours").target == "red", "red")
    good = loop.champion("colours")
    assert good is not None
    loop.learn("colours", "blue", start=1_000, pairs=160)
    wait_for(lambda: loop.answer("colours").target == "blue", "blue")
    bad = loop.champion("colours")
    step = loop.store.state("colours").step

    done = loop.sdk.control("rollback", "colours", snapshot_id=good, reason="blue is wrong")
    assert done.ok, done.error
    assert done.champion == good != bad
    rolled = loop.registry.status("colours")
    assert (rolled.champion, rolled.pinned, rolled.branch) == (good, True, 1)
    assert loop.store.state("colours").step < step
    wait_for(lambda: loop.answer("colours").snapshot_id == good, "the swap back")
    assert loop.answer("colours").target == "red"

    loop.learn("colours", "red", start=2_000, pairs=32)  # the learner goes on from there
    lines = [json.loads(line) for line in loop.store.journal("colours")]
    fork = next(n for n, line in enumerate(lines) if line["kind"] == "rollback")
    after = [line for line in lines[fork:] if line["kind"] == "step"]
    assert after[0]["parent"] == loop.registry.record("colours", good).manifest.step
    assert after[0]["step"] > step
    assert {line["branch"] for line in after} == {1}
    assert loop.champion("colours") == good  # pinned

    assert loop.sdk.control("unpin", "colours").ok
    loop.learn("colours", "red", start=3_000, pairs=64)
    wait_for(lambda: loop.champion("colours") != good, "a promotion")
    wait_for(lambda: loop.answer("colours").snapshot_id == loop.champion("colours"), "the swap")
    assert loop.answer("colours").target == "red"


def test_swaps_under_load_lose_no_reply(loop: Loop) -> None:
    """A client asks all the time while snapshots come and go; the history says which answered."""
    loop.learn("load", "one", start=0, pairs=48)
    wait_for(lambda: loop.answer("load").snapshot_id is not None, "the first snapshot")
    stop, failures = threading.Event(), list[BaseException]()

    def ask() -> None:
        try:
            n = 0
            while not stop.is_set():
                loop.ask("load", f"load-{n}")
                n += 1
                stop.wait(0.02)
        except BaseException as error:
            failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    try:
        for lesson in range(5):
            loop.learn("load", "one", start=1_000 * (lesson + 1), pairs=32)
    finally:
        stop.set()
        client.join()
    assert not failures
    wait_for(lambda: loop.asked <= {r.request_id for r in loop.heard}, "every reply")
    replies = [reply for reply in loop.heard if reply.request_id.startswith("load-")]
    assert len(replies) == len(loop.asked) >= 20
    assert loop.errors == {}
    assert len({reply.snapshot_id for reply in replies}) > 2
    facts = loop.facts()
    assert [v for v in violations(facts) if "which nobody sent" not in v] == []


def test_a_rollback_takes_less_than_a_second(loop: Loop) -> None:
    """The consumer does it, so it works while the learner is dead."""
    champion = loop.champion("load")
    loop.kill("learner")
    began_s = time.monotonic()
    done = loop.sdk.control("rollback", "load")
    took_s = time.monotonic() - began_s
    assert done.ok, done.error
    assert done.champion not in (None, champion)
    wait_for(lambda: loop.answer("load").snapshot_id == done.champion, "the swap back")
    print(
        f"rollback answered after {took_s:.3f} s"
    )  # a promise of an idle machine, shown not asserted
    loop.start("learner")
