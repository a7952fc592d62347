"""The whole loop on each broker: teach, learn, gate, swap, predict; correct, roll back, pin."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseq_core.client import Client, Prediction
from edgeseq_core.errors import RequestError
from edgeseq_core.testing.base import write_tiny_base
from tests.brokers import Broker
from tests.faults.deployment import PARTITIONS, SERVICES, Deployment, wait_for
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
    "GATE_INTERVAL_S": "1.0",
    "GATE_MIN_PAIRS": "4",
    "GATE_LOSS_SLACK": "0.2",  # the gate has its own tests; here it should not depend on chance
    "REHEARSALS_PER_STEP": "2",
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
        self.signal("learner", signal.SIGSTOP)  # so that it is one lesson, with few candidates
        told = self.sdk.teach(task, [(f"in {n}", answer) for n in range(start, start + pairs)])
        wait_for(lambda: self._are_stored(task, told.pair_ids), "the lesson to be stored")
        self.signal("learner", signal.SIGCONT)
        wait_for(lambda: self._is_settled(task, told.pair_ids), "the lesson and its rehearsals")
        return list(told.pair_ids)

    def _are_stored(self, task: str, pair_ids: tuple[str, ...]) -> bool:
        return all(self.store.outcome(task, "erp", pair_id) for pair_id in pair_ids)

    def _is_settled(self, task: str, pair_ids: tuple[str, ...]) -> bool:
        found = [self.store.outcome(task, "erp", pair_id) for pair_id in pair_ids]
        if not all(one and one.state in ("trained", "held_out") for one in found):
            return False
        lines = [json.loads(line) for line in self.store.journal(task)[-6:]]
        last = [line for line in lines if line["kind"] == "step"][-1]
        return lines[-1]["kind"] == "gate" and not (last["bulk"] or last["corrections"])

    def answer(self, task: str, source: str = "in 77777") -> Prediction:
        prediction = self.sdk.predict(task, source, timeout_s=30)
        assert isinstance(prediction, Prediction)
        return prediction

    def serves(self, task: str) -> bool:
        """Whether the predictor has seen the task's first snapshot: it looks a few times a second."""
        try:
            return self.answer(task).snapshot_id is not None
        except RequestError as error:
            if error.code != "unknown_task":
                raise
            return False

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
    pair_ids = loop.learn("greetings", "hi", start=0, pairs=160)
    wait_for(lambda: loop.serves("greetings"), "the first snapshot")
    wait_for(lambda: loop.answer("greetings").target == "hi", "the right answer")
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


def test_corrections_pass_the_bulk_that_waits(loop: Loop) -> None:
    loop.learn("greetings", "hi", start=1_000, pairs=16)
    loop.signal("learner", signal.SIGSTOP)
    loop.sdk.teach("burst", [(f"in {n}", "so") for n in range(200)])
    loop.sdk.teach("greetings", [(f"in {n}", "hi") for n in range(2_000, 2_100)])
    own = loop.sdk.correct("burst", "in 5", "so")
    other = loop.sdk.correct("greetings", "in 5", "hi", request_id="some-reply")
    names = [("burst", "erp", own), ("greetings", "erp", other)]
    wait_for(lambda: all(loop.store.outcome(*name) for name in names), "the corrections")
    wait_for(lambda: sum(loop.store.stats("burst").pairs.values()) == 201, "the burst")
    loop.signal("learner", signal.SIGCONT)
    wait_for(lambda: not any(loop.store.waiting(n) for n in range(PARTITIONS)), "all to be learnt")
    for task in ("burst", "greetings"):
        steps = [json.loads(line) for line in loop.store.journal(task)]
        steps = [line for line in steps if line["kind"] == "step" and line["bulk"]]
        last = max(n for n, line in enumerate(steps) if line["corrections"])
        assert steps[last + 1 :], "bulk waited while the correction was learnt"
    status = loop.sdk.pair_status("greetings", "erp", other, timeout_s=30)
    assert status.state == "trained"


def test_a_rollback_flips_pins_and_forks_and_unpin_lets_it_promote(loop: Loop) -> None:
    loop.learn("moods", "up", start=0, pairs=240)
    wait_for(lambda: loop.serves("moods"), "the first snapshot")
    wait_for(lambda: loop.answer("moods").target == "up", "up")
    good = loop.champion("moods")
    assert good is not None
    for action in ("pin", "unpin"):  # what a person chose last stays, however many are promoted
        assert loop.sdk.control(action, "moods").ok
    loop.learn("moods", "no", start=1_000, pairs=320)
    wait_for(lambda: loop.answer("moods").target == "no", "no")
    bad = loop.champion("moods")
    step = loop.store.state("moods").step

    done = loop.sdk.control("rollback", "moods", snapshot_id=good, reason="no is wrong")
    assert done.ok, done.error
    assert done.champion == good != bad
    rolled = loop.registry.status("moods")
    assert (rolled.champion, rolled.pinned, rolled.branch) == (good, True, 1)
    assert loop.store.state("moods").step < step
    wait_for(lambda: loop.answer("moods").snapshot_id == good, "the swap back")
    assert loop.answer("moods").target == "up"

    loop.learn("moods", "up", start=2_000, pairs=32)  # the learner goes on from there
    lines = [json.loads(line) for line in loop.store.journal("moods")]
    fork = next(n for n, line in enumerate(lines) if line["kind"] == "rollback")
    after = [line for line in lines[fork:] if line["kind"] == "step"]
    assert after[0]["parent"] == loop.registry.record("moods", good).manifest.step
    assert after[0]["step"] > step
    assert {line["branch"] for line in after} == {1}
    assert loop.champion("moods") == good  # pinned

    assert loop.sdk.control("unpin", "moods").ok
    for lesson in range(3, 9):  # until the held-out pairs of the other mood have left the slice
        loop.learn("moods", "up", start=1_000 * lesson)
        if loop.champion("moods") != good:
            break
    assert loop.champion("moods") != good, loop.store.journal("moods")[-6:]
    wait_for(lambda: loop.answer("moods").snapshot_id == loop.champion("moods"), "the swap")
    assert loop.answer("moods").target == "up"


def test_swaps_under_load_lose_no_reply(loop: Loop) -> None:
    """A client asks all the time while snapshots come and go; the history says which answered."""
    loop.learn("load", "one", start=0, pairs=48)
    wait_for(lambda: loop.serves("load"), "the first snapshot")
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


def test_a_rollback_needs_no_learner(loop: Loop) -> None:
    """The consumer does it."""
    for lesson in range(2):
        loop.learn("ways", "so", start=1_000 * lesson, pairs=48)
    champion = loop.champion("ways")
    loop.kill("learner")
    done = loop.sdk.control("rollback", "ways")
    assert done.ok, done.error
    assert done.champion not in (None, champion)
    wait_for(lambda: loop.answer("ways").snapshot_id == done.champion, "the swap back")
    loop.start("learner")
