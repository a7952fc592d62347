"""Requests in, replies out, without Kafka."""

from __future__ import annotations

import math

import pytest

from edgeseq_core.engine import Generation, Limits
from edgeseq_core.errors import StoreUnavailableError
from edgeseq_core.messages import Reply, Request, Series
from edgeseq_core.serving.queued import QueuedRequest
from edgeseq_core.serving.replies import MemoryReplyCache, SteadyReplyCache
from edgeseq_core.serving.residents import Residents
from edgeseq_core.testing.clock import FakeClock
from edgeseq_core.testing.engine import FakeEngine, fake_payload
from tests.serving.examples import CountingMeter, ask, predictor_of, request, serving


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def code(reply: Reply) -> str | None:
    return reply.error.code if reply.error else None


def test_an_answer_names_snapshot_confidence_and_timings(clock: FakeClock) -> None:
    engine = FakeEngine(before_token=lambda _row, _step: clock.advance(0.001))
    engine.swap("dates", "dates-1-a", fake_payload("dates", "a"))
    predictor = predictor_of(engine, clock)
    waiting = predictor.receive(request("abc"))
    clock.advance(0.25)
    (reply,) = predictor.answer([waiting])
    (best,) = reply.hypotheses
    assert (best.target, reply.snapshot_id) == ("cba~a", "dates-1-a")
    assert (reply.confidence, reply.abstained) == (0.9, False)
    assert best.score == pytest.approx(math.log(0.9))
    assert reply.timings.queue_ms == pytest.approx(250)
    assert reply.timings.compute_ms == pytest.approx(5)
    assert reply.timings.total_ms == pytest.approx(255)


def test_one_batch_answers_many_tasks_in_the_order_asked(clock: FakeClock) -> None:
    engine = serving(dates="d", verbs="v")
    predictor = predictor_of(engine, clock)
    replies = ask(
        predictor, request("ab", task="verbs"), request("cd"), request("ef", task="verbs")
    )
    assert [r.hypotheses[0].target for r in replies] == ["ba~v", "dc~d", "fe~v"]
    assert len(engine.batches) == 1


def test_each_request_gets_as_many_answers_as_it_asks_for(clock: FakeClock) -> None:
    predictor = predictor_of(serving(dates="d", verbs="v"), clock)
    many, one = ask(predictor, request("ab", n_best=3), request("cd", task="verbs"))
    assert [h.target for h in many.hypotheses] == ["ba~d", "ba~d~2", "ba~d~3"]
    assert [h.confidence for h in many.hypotheses] == pytest.approx([0.9, 0.45, 0.225])
    assert (many.confidence, many.abstained) == (0.9, False)
    assert [h.target for h in one.hypotheses] == ["dc~v"]


def test_a_request_without_a_task_is_answered_by_the_nearest(clock: FakeClock) -> None:
    meter = CountingMeter()
    predictor = predictor_of(serving(dates="d", verbs="v"), clock, meter=meter)
    found, none, either, named = ask(
        predictor,
        request("verbs:ab", task=None),
        request("strange", task=None),
        request("dates|verbs:ab", task=None),
        request("verbs:cd"),
    )
    assert (found.task, found.snapshot_id) == ("verbs", "verbs-1-v")
    assert (found.task_confidence, found.confidence) == (0.75, 0.9)
    assert (code(none), none.task) == ("missing_task", None)
    assert none.error is not None
    assert "unlike what any task here was taught" in none.error.detail
    assert (code(either), either.task) == ("missing_task", None)
    assert either.error is not None
    assert "dates or verbs" in either.error.detail
    assert (named.task, named.task_confidence) == ("dates", None)
    assert meter.outcomes == [
        (None, "missing_task"),
        (None, "missing_task"),
        ("verbs", "answered"),
        ("dates", "answered"),
    ]


def test_more_answers_than_the_predictor_gives_are_refused(clock: FakeClock) -> None:
    predictor = predictor_of(serving(dates="a"), clock, max_n_best=4)
    some, many = ask(predictor, request("ab", n_best=4), request("cd", n_best=5))
    assert [code(some), code(many)] == [None, "invalid"]
    assert "at most 4" in many.error.detail  # type: ignore[union-attr]


def test_what_cannot_be_computed_gets_its_typed_error(clock: FakeClock) -> None:
    meter = CountingMeter()
    predictor = predictor_of(serving(dates="a"), clock, meter=meter)
    replies = ask(
        predictor,
        request(task="nobody"),
        request(task=None),
        request("x" * 65),
        request(Series(times=[0.0, 1.0], values=[[1.0], [2.0]])),
        request("fine"),
    )
    assert [code(r) for r in replies] == [
        "unknown_task",
        "missing_task",
        "too_long",
        "unsupported_source",
        None,
    ]
    assert "65 tokens" in replies[2].error.detail  # type: ignore[union-attr]
    assert meter.outcomes[-1] == ("dates", "answered")


def test_a_low_confidence_abstains_and_still_shows_its_hypothesis(clock: FakeClock) -> None:
    meter = CountingMeter()
    predictor = predictor_of(serving(dates="a"), clock, abstain_below=0.95, meter=meter)
    (reply,) = ask(predictor, request("abc"))
    assert reply.abstained
    assert reply.hypotheses[0].target == "cba~a"
    assert meter.outcomes == [("dates", "abstained")]


def test_an_answer_cut_at_the_limit_abstains(clock: FakeClock) -> None:
    (reply,) = ask(predictor_of(serving(dates="a"), clock, max_tokens=3), request("abcdef"))
    assert (reply.hypotheses[0].target, reply.abstained) == ("fed", True)


def test_expired_and_cancelled_requests_are_not_computed(clock: FakeClock) -> None:
    engine = serving(dates="a")
    predictor = predictor_of(engine, clock, is_cancelled=lambda request_id: request_id == "c")
    late = predictor.receive(request(timeout_ms=10))
    gone = predictor.receive(request(request_id="c"))
    clock.advance(0.01)
    assert [code(r) for r in predictor.answer([late, gone])] == ["expired", "cancelled"]
    assert engine.batches == []


def test_deadline_and_cancel_stop_a_row_between_decode_steps(clock: FakeClock) -> None:
    cancelled: set[str] = set()
    steps: list[tuple[int, int]] = []

    def before(row: int, step: int) -> None:
        steps.append((row, step))
        clock.advance(0.001)
        if step == 3:
            cancelled.add("stop")

    engine = FakeEngine(before_token=before)
    engine.swap("dates", "dates-1-a", fake_payload("dates", "a"))
    predictor = predictor_of(engine, clock, is_cancelled=cancelled.__contains__)
    replies = ask(
        predictor,
        request("x" * 20, timeout_ms=12),
        request("y" * 20, request_id="stop"),
        request("z" * 20),
    )
    assert [code(r) for r in replies] == ["expired", "cancelled", None]
    assert replies[2].hypotheses[0].target == "z" * 20 + "~a"
    assert max(step for row, step in steps if row == 0) <= 12
    assert max(step for row, step in steps if row == 1) <= 4


def test_a_repeated_id_gets_the_first_answer_even_after_a_swap(clock: FakeClock) -> None:
    engine = serving(dates="a")
    meter = CountingMeter()
    predictor = predictor_of(engine, clock, meter=meter)
    (first,) = ask(predictor, request("abc", request_id="r"))
    engine.swap("dates", "dates-2-b", fake_payload("dates", "b"))
    clock.advance(1)
    (second,) = ask(predictor, request("abc", request_id="r"))
    assert second == first
    assert [outcome for _, outcome in meter.outcomes] == ["answered", "repeated"]
    clock.advance(600)
    (third,) = ask(predictor, request("abc", request_id="r"))
    assert third.snapshot_id == "dates-2-b"


def test_equal_ids_in_one_batch_are_computed_once(clock: FakeClock) -> None:
    engine = serving(dates="a")
    predictor = predictor_of(engine, clock)
    replies = ask(predictor, *(request("abc", request_id="r") for _ in range(3)), request("d"))
    assert replies[0] == replies[1] == replies[2]
    assert [len(batch) for batch in engine.batches] == [2]


def test_an_id_used_for_another_question_is_refused(clock: FakeClock) -> None:
    predictor = predictor_of(serving(dates="a"), clock)
    replies = ask(predictor, request("abc", request_id="r"), request("xyz", request_id="r"))
    assert [code(r) for r in replies] == [None, "invalid"]
    assert [code(r) for r in ask(predictor, request("xyz", request_id="r"))] == ["invalid"]


def test_an_error_is_not_remembered(clock: FakeClock) -> None:
    engine = serving(dates="a")
    predictor = predictor_of(engine, clock)
    (unknown,) = ask(predictor, request("abc", task="verbs", request_id="r"))
    assert code(unknown) == "unknown_task"
    engine.swap("verbs", "verbs-1-v", fake_payload("verbs", "v"))
    (known,) = ask(predictor, request("abc", task="verbs", request_id="r"))
    assert known.snapshot_id == "verbs-1-v"


def test_the_answer_of_the_predictor_that_was_first_counts(clock: FakeClock) -> None:
    shared = MemoryReplyCache(clock, window_s=600)
    other = predictor_of(serving(dates="other"), clock, cache=shared)

    class Racing(FakeEngine):
        def generate(self, rows: object, limits: Limits) -> list[Generation]:
            ask(other, request("abc", request_id="r"))  # between our look-up and our answer
            return super().generate(rows, limits)  # type: ignore[arg-type]

    engine = Racing()
    engine.swap("dates", "dates-1-own", fake_payload("dates", "own"))
    (reply,) = ask(predictor_of(engine, clock, cache=shared), request("abc", request_id="r"))
    assert reply.snapshot_id == "dates-1-other"


def test_one_row_that_breaks_the_engine_spoils_no_other(clock: FakeClock) -> None:
    class Brittle(FakeEngine):
        def generate(self, rows: object, limits: Limits) -> list[Generation]:
            if any(row.source == "poison" for row in rows):  # type: ignore[attr-defined]
                raise RuntimeError("shape of poison")
            return super().generate(rows, limits)  # type: ignore[arg-type]

    engine = Brittle()
    engine.swap("dates", "dates-1-a", fake_payload("dates", "a"))
    replies = ask(predictor_of(engine, clock), request("abc"), request("poison"), request("d"))
    assert [code(r) for r in replies] == [None, "internal", None]
    assert "poison" not in replies[1].error.detail  # type: ignore[union-attr]


def test_a_task_dropped_while_its_request_waited_is_unknown(clock: FakeClock) -> None:
    class Dropping(FakeEngine):
        def generate(self, rows: object, limits: Limits) -> list[Generation]:
            self.drop("dates")
            return super().generate(rows, limits)  # type: ignore[arg-type]

    engine = Dropping()
    engine.swap("dates", "dates-1-a", fake_payload("dates", "a"))
    assert [code(r) for r in ask(predictor_of(engine, clock), request())] == ["unknown_task"]


def test_without_the_shared_cache_serving_goes_on_and_is_counted(clock: FakeClock) -> None:
    class Down(MemoryReplyCache):
        calls = 0
        up = False

        def lookup(self, request_ids: object) -> dict[str, bytes]:
            self.calls += 1
            if not self.up:
                raise StoreUnavailableError("down")
            return super().lookup(request_ids)  # type: ignore[arg-type]

        def settle(self, entries: object) -> dict[str, bytes]:
            if not self.up:
                raise StoreUnavailableError("down")
            return super().settle(entries)  # type: ignore[arg-type]

    shared = Down(clock, window_s=600)
    meter = CountingMeter()
    cache = SteadyReplyCache(shared, MemoryReplyCache(clock, window_s=600), clock, meter=meter)
    engine = serving(dates="a")
    predictor = predictor_of(engine, clock, cache=cache, meter=meter)
    (first,) = ask(predictor, request("abc", request_id="r"))
    engine.swap("dates", "dates-2-b", fake_payload("dates", "b"))
    assert ask(predictor, request("abc", request_id="r")) == [first]
    assert (meter.uncached_replies, shared.calls) == (1, 1)  # the failed store is left alone
    shared.up = True
    clock.advance(2)
    ask(predictor, request("new", request_id="s"))
    assert "s" in shared.lookup(["s"])
    assert meter.uncached_replies == 1


# --- tasks that are not in memory ---------------------------------------------------------------------


class Shelf:
    """A predictor whose task ``cold`` must be loaded first, and whose task ``dates`` need not be."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.engine, self.meter = clock, FakeEngine(), CountingMeter()
        self.residents = Residents(self.engine, budget_bytes=1 << 20, clock=clock)
        self.load("dates")
        self.residents.note("cold", "cold-1")
        self.predictor = predictor_of(
            self.engine, clock, residents=self.residents, meter=self.meter
        )

    def load(self, task: str) -> None:
        self.residents.load(task, f"{task}-1", fake_payload(task, "m"))

    def place(self) -> None:
        self.residents.place("cold", fake_payload("cold", "m"))

    def answer(self, *requests: Request) -> list[Reply | QueuedRequest]:
        return self.predictor.answer([self.predictor.receive(one) for one in requests])


@pytest.fixture
def shelf(clock: FakeClock) -> Shelf:
    return Shelf(clock)


def test_a_cold_task_is_let_in_and_put_back_until_it_is_loaded(shelf: Shelf) -> None:
    asked = shelf.predictor.receive(request("abc", task="cold"))
    assert shelf.predictor.refuse(asked) is None
    hot, back = shelf.predictor.answer([shelf.predictor.receive(request("abc")), asked])
    assert isinstance(hot, Reply)
    assert hot.hypotheses[0].target == "cba~m"
    assert back is asked
    shelf.load("cold")
    (reply,) = shelf.predictor.answer([asked])
    assert isinstance(reply, Reply)
    assert (reply.snapshot_id, reply.hypotheses[0].target) == ("cold-1", "cba~m")


def test_an_inferred_task_that_is_cold_is_loaded_and_its_answer_repeated(shelf: Shelf) -> None:
    shelf.place()
    nameless = request("cold:x", task=None)
    (back,) = shelf.answer(nameless)
    assert isinstance(back, QueuedRequest)
    assert back.request.task == "cold"
    assert shelf.residents.next_wish(0) == ("cold", True)
    shelf.load("cold")
    (reply,) = shelf.predictor.answer([back])
    assert isinstance(reply, Reply)
    assert (reply.task, reply.task_confidence, reply.snapshot_id) == ("cold", 0.75, "cold-1")
    (again,) = shelf.answer(nameless)  # its id names the same question as before
    assert again == reply
    assert shelf.meter.outcomes[-1] == (None, "repeated")


def test_all_askers_of_an_id_are_put_back_together(shelf: Shelf) -> None:
    shelf.place()
    nameless = request("cold:x", task=None)
    back = shelf.answer(nameless, nameless)
    assert [isinstance(one, QueuedRequest) and one.request.task for one in back] == ["cold"] * 2
    shelf.load("cold")
    replies = shelf.predictor.answer([one for one in back if isinstance(one, QueuedRequest)])
    assert replies[0] == replies[1]


def test_while_the_store_is_away_only_what_is_in_memory_answers(shelf: Shelf) -> None:
    shelf.residents.cannot_reach_store()
    cold, nameless, hot = shelf.answer(request(task="cold"), request(task=None), request())
    assert isinstance(cold, Reply)
    assert isinstance(nameless, Reply)
    assert isinstance(hot, Reply)
    assert (code(cold), code(nameless), code(hot)) == ("internal", "internal", None)


def test_a_task_that_went_while_it_was_waited_for_is_unknown(shelf: Shelf) -> None:
    asked = shelf.predictor.receive(request(task="cold"))
    shelf.residents.drop("cold")
    (reply,) = shelf.predictor.answer([asked])
    assert isinstance(reply, Reply)
    assert code(reply) == "unknown_task"
