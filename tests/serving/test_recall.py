"""Answers from the memory of corrections, without Kafka: what leads, what it costs, what it never does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgeseq_core.engine import Generation, Limits, SourceRow
from edgeseq_core.errors import StoreUnavailableError
from edgeseq_core.messages import PairName, Reply
from edgeseq_core.replay.buffer import Position, TaskSettings
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.serving.predictor import Predictor
from edgeseq_core.serving.recall import Recall
from edgeseq_core.testing.clock import FakeClock
from edgeseq_core.testing.engine import FakeEngine, fake_payload
from tests.contract.stores import FEEDBACK, LOG, NOW_MS, incoming
from tests.serving.examples import CountingMeter, ask, predictor_of, request, serving


class World:
    """A predictor of ``dates`` (which has a memory) and ``verbs`` (which has none) over one store."""

    def __init__(self, engine: FakeEngine | None = None, **predictor: float) -> None:
        self.clock, self.meter = FakeClock(), CountingMeter()
        self.engine = engine or serving(dates="d", verbs="v")
        self.store = MemoryStore()
        self.store.set_task("dates", TaskSettings(memory=True))
        self.store.set_task("verbs", TaskSettings())
        self.reads: list[list[tuple[str, str]]] = []
        self.up = True
        self._epoch = self.store.acquire("consumer", 0)
        self._offset = 0
        self.predictor: Predictor = predictor_of(
            self.engine,
            self.clock,
            recall=Recall(self, is_allowed=self.is_allowed, clock=self.clock),  # type: ignore[arg-type]
            meter=self.meter,
            **predictor,  # type: ignore[arg-type]
        )

    def is_allowed(self, task: str) -> bool:
        return self.store.tasks(0)[task].memory

    def recall(self, asked: Sequence[tuple[str, str]]) -> list[Remembered | None]:
        """The store's, counted, and away when a test says so."""
        self.reads.append(list(asked))
        if not self.up:
            raise StoreUnavailableError("down")
        return self.store.recall(asked)

    def correct(self, source: str, target: str, *, task: str = "dates") -> PairName:
        before = Position(LOG, self._offset) if self._offset else None
        pair = incoming(self._offset, task=task, correction=True, source=source, target=target)
        self._offset += 1
        outcomes = self.store.ingest(
            0,
            [pair],
            epoch=self._epoch,
            topic=FEEDBACK,
            expected=before,
            position=Position(LOG, self._offset),
            now_ms=NOW_MS,
        )
        assert outcomes == ["accepted"]
        return PairName(producer=pair.producer, pair_id=pair.pair_id)

    def ask(self, source: str, **fields: object) -> Reply:
        (reply,) = ask(self.predictor, request(source, **fields))  # type: ignore[arg-type]
        return reply


@pytest.fixture
def world() -> World:
    return World()


def targets(reply: Reply) -> list[str]:
    return [one.target for one in reply.hypotheses]


def test_a_corrected_source_is_answered_at_once_and_names_the_pair(world: World) -> None:
    assert targets(world.ask("abc")) == ["cba~d"]
    pair = world.correct("abc", "right")
    reply = world.ask("abc")
    assert (targets(reply), reply.memory, reply.snapshot_id) == (["right"], pair, "dates-1-d")
    # Nobody estimated how sure this is, so nothing is claimed.
    assert (reply.confidence, reply.hypotheses[0].score, reply.abstained) == (None, None, False)
    assert reply.hypotheses[0].confidence is None
    assert [outcome for _, outcome in world.meter.outcomes] == ["answered", "remembered"]
    assert len(world.engine.batches) == 1  # the model was not asked again
    other = world.ask("abd")
    assert (targets(other), other.memory, other.confidence) == (["dba~d"], None, 0.9)


def test_the_latest_correction_counts(world: World) -> None:
    for target in ("A", "B", "A"):
        pair = world.correct("abc", target)
        reply = world.ask("abc")
        assert (targets(reply), reply.memory) == ([target], pair)


def test_a_task_without_memory_is_answered_by_its_model_and_costs_no_read(world: World) -> None:
    world.correct("abc", "right", task="verbs")
    reply = world.ask("abc", task="verbs")
    assert (targets(reply), reply.memory) == (["cba~v"], None)
    assert world.reads == []


def test_one_read_a_batch_for_the_tasks_that_have_a_memory(world: World) -> None:
    world.correct("abc", "right")
    replies = ask(
        world.predictor,
        request("abc"),
        request("abc"),
        request("xyz", task="verbs"),
        request("xyz"),
        request("nobody's", task="nobody"),
    )
    assert [targets(r) for r in replies] == [["right"], ["right"], ["zyx~v"], ["zyx~d"], []]
    assert world.reads == [[("dates", "abc"), ("dates", "xyz")]]
    assert [row.source for row in world.engine.batches[0]] == ["xyz", "xyz"]


def test_further_answers_are_the_models(world: World) -> None:
    world.correct("abc", "right")
    reply = world.ask("abc", n_best=3)
    assert targets(reply) == ["right", "cba~d", "cba~d~2"]
    assert [one.score is None for one in reply.hypotheses] == [True, False, False]
    world.correct("abc", "cba~d")  # what the model says itself is not said twice
    assert targets(world.ask("abc", n_best=3)) == ["cba~d", "cba~d~2", "cba~d~3"]


def test_a_cut_answer_of_the_model_is_left_out() -> None:
    world = World(max_tokens=3)
    world.correct("abcdef", "right, and longer than the model may answer")
    reply = world.ask("abcdef", n_best=2)
    assert targets(reply) == ["right, and longer than the model may answer"]
    assert not reply.abstained


def test_a_remembered_answer_does_not_abstain(world: World) -> None:
    unsure = World(abstain_below=0.95)
    assert unsure.ask("abc").abstained
    unsure.correct("abc", "right")
    assert not unsure.ask("abc").abstained


def test_a_constrained_request_is_answered_too(world: World) -> None:
    pair = world.correct("abc", "ÄÖ")  # a target of the task's, so its symbols are allowed
    assert world.ask("abc", constrained=True).memory == pair


def test_a_task_that_was_inferred_recalls_as_one_that_was_named(world: World) -> None:
    pair = world.correct("dates:abc", "right")
    reply = world.ask("dates:abc", task=None)
    assert (reply.task, reply.task_confidence, reply.memory) == ("dates", 0.75, pair)
    assert targets(reply) == ["right"]


def test_a_repeated_id_gets_the_answer_that_it_got_first(world: World) -> None:
    first = world.ask("abc", request_id="before")
    world.correct("abc", "right")
    assert world.ask("abc", request_id="before") == first
    told = world.ask("abc", request_id="after")
    assert targets(told) == ["right"]
    world.correct("abc", "righter")
    assert world.ask("abc", request_id="after") == told


def test_what_is_late_or_refused_is_not_answered_from_memory(world: World) -> None:
    world.correct("abc", "right")
    late = world.predictor.receive(request("abc", timeout_ms=10))
    world.clock.advance(0.01)
    (reply,) = world.predictor.answer([late])
    assert reply.error is not None
    assert reply.error.code == "expired"
    world.engine.drop("dates")  # a reply names the snapshot that serves: there is none
    unserved = world.ask("abc")
    assert unserved.error is not None
    assert unserved.error.code == "unknown_task"


def test_a_deadline_that_passes_while_more_is_made_counts() -> None:
    engine = FakeEngine(before_token=lambda _row, _step: world.clock.advance(0.001))
    engine.swap("dates", "dates-1-d", fake_payload("dates", "d"))
    world = World(engine)
    world.correct("x" * 20, "right")
    reply = world.ask("x" * 20, n_best=2, timeout_ms=12)
    assert reply.error is not None
    assert reply.error.code == "expired"


def test_a_task_dropped_during_the_batch_is_unknown() -> None:
    class Dropping(FakeEngine):
        def generate(self, rows: Sequence[SourceRow], limits: Limits) -> list[Generation]:
            self.drop("dates")
            return super().generate(rows, limits)

    engine = Dropping()
    for task in ("dates", "verbs"):
        engine.swap(task, f"{task}-1-a", fake_payload(task, "a"))
    world = World(engine)
    world.correct("abc", "right")
    dropped, other = ask(world.predictor, request("abc"), request("abc", task="verbs"))
    assert dropped.error is not None
    assert dropped.error.code == "unknown_task"
    assert targets(other) == ["cba~a"]


def test_without_the_store_the_model_answers_and_the_store_is_left_alone(world: World) -> None:
    world.correct("abc", "right")
    world.up = False
    for _ in range(2):
        reply = world.ask("abc")
        assert (targets(reply), reply.memory) == (["cba~d"], None)
    assert len(world.reads) == 1
    world.up = True
    world.clock.advance(2)
    assert targets(world.ask("abc")) == ["right"]
