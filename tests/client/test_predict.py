"""Requests and replies: matching, duplicates, repeats, errors, cancellation."""

from __future__ import annotations

import threading

import pytest

from edgeseq_core.client import Client
from edgeseq_core.errors import InputError, NoReplyError, RequestError
from edgeseq_core.keys import HEADER_ID, HEADER_TRACE
from edgeseq_core.messages import Control, Message, Reply, ReplyError, Request, Series
from tests.client.conftest import settings_of
from tests.client.responder import TIMINGS, Responder, nearest_task, remembered, reply_to, silent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.timeout(90)  # Apache Kafka takes seconds to start
def test_a_source_gets_its_reply_on_every_broker(any_responder: Responder) -> None:
    with Client(settings=settings_of(any_responder)) as client:
        prediction = client.predict("dates", "abc", traceparent=TRACE)
    assert prediction.target == "cba"
    assert (prediction.confidence, prediction.snapshot_id) == (0.9, "dates-1-abc")
    assert not prediction.abstained
    (sent,) = any_responder.wait_for(1, Request)
    assert sent.key == b"dates"
    assert sent.headers[HEADER_ID] == prediction.request_id
    assert sent.headers[HEADER_TRACE] == TRACE


def test_a_list_keeps_its_order_although_replies_do_not(
    client: Client, responder: Responder
) -> None:
    held: list[Message] = []

    def swap(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        held.append(reply_to(message))
        return []

    responder.answer = swap
    answered: list[object] = []
    sources = [f"source {n}" for n in range(5)]
    thread = threading.Thread(target=lambda: answered.append(client.predict("dates", sources)))
    thread.start()
    asked = responder.wait_for(5, Request)
    for one, reply in reversed(list(zip(asked, held, strict=True))):
        responder.send(reply, one.headers)
    thread.join()
    (predictions,) = answered
    assert isinstance(predictions, list)
    assert [p.source for p in predictions] == sources
    assert [p.target for p in predictions] == [s[::-1] for s in sources]


def test_duplicate_replies_are_delivered_once(client: Client, responder: Responder) -> None:
    def twice(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        return [reply_to(message), reply_to(message, snapshot_id="dates-2-late")]

    responder.answer = twice
    for source in ("one", "two", "three"):
        assert client.predict("dates", source).snapshot_id == "dates-1-abc"


def test_a_lost_reply_is_asked_for_again_with_the_identical_record(
    client: Client, responder: Responder
) -> None:
    def second_time(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        return [reply_to(message)] if responder.received else []

    responder.answer = second_time
    assert client.predict("dates", "abc", timeout_s=3).target == "cba"
    first, second = responder.wait_for(2, Request)
    assert first.value == second.value
    assert first.headers == second.headers
    assert first.key == second.key


def test_silence_is_a_typed_error_after_a_bounded_number_of_repeats(
    client: Client, responder: Responder
) -> None:
    responder.answer = silent
    with pytest.raises(NoReplyError, match=r"no reply within 0.9 s"):
        client.predict("dates", "abc", timeout_s=0.9)
    assert len(responder.wait_for(3, Request)) == 3
    (prediction,) = client.predict("dates", ["abc"], timeout_s=0.3)
    assert isinstance(prediction.error, NoReplyError)


def test_a_late_reply_is_dropped_and_not_given_to_the_next_request(
    client: Client, responder: Responder
) -> None:
    answer, responder.answer = responder.answer, silent
    with pytest.raises(NoReplyError):
        client.predict("dates", "early", timeout_s=0.3)
    (late, *_) = responder.wait_for(1, Request)
    assert isinstance(late.message, Request)
    responder.answer = answer
    responder.send(reply_to(late.message), late.headers)
    assert client.predict("dates", "next").target == "txen"


@pytest.mark.parametrize("code", ["unknown_task", "overloaded", "expired", "too_long"])
def test_error_replies_are_raised_for_one_source_and_values_in_a_list(
    client: Client, responder: Responder, code: str
) -> None:
    def refuse(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        if message.source == "good":
            return [reply_to(message)]
        error = ReplyError.model_validate({"code": code, "detail": "why"})
        return [Reply(request_id=message.request_id, error=error, timings=TIMINGS)]

    responder.answer = refuse
    with pytest.raises(RequestError) as raised:
        client.predict("dates", "bad")
    assert raised.value.code == code
    bad, good = client.predict("dates", ["bad", "good"])
    assert isinstance(bad.error, RequestError)
    assert bad.error.code == code
    assert bad.target is None
    assert good.error is None
    assert good.target == "doog"


def test_what_cannot_be_a_request_is_refused_before_it_is_sent(
    client: Client, responder: Responder
) -> None:
    long, empty, good = client.predict("dates", ["x" * 1025, "", "good"])
    assert long.error is not None
    assert long.error.code == "too_long"
    assert empty.error is not None
    assert empty.error.code == "invalid"
    assert good.target == "doog"
    with pytest.raises(RequestError, match="task"):
        client.predict("No Such Name", "abc")
    assert len(responder.wait_for(1, Request)) == 1


def test_options_travel_in_the_request(client: Client, responder: Responder) -> None:
    client.predict(
        "dates", "a", n_best=4, constrained=True, priority="bulk", deadline_ms=4_000_000_000_000
    )
    client.predict(None, "b")
    bulk, plain = responder.wait_for(2, Request)
    assert isinstance(bulk.message, Request)
    assert isinstance(plain.message, Request)
    assert bulk.topic == responder.topics.bulk
    assert plain.topic == responder.topics.requests
    assert (bulk.message.n_best, bulk.message.priority) == (4, "bulk")
    assert (bulk.message.constrained, plain.message.constrained) == (True, False)
    assert bulk.message.deadline_ms == 4_000_000_000_000
    assert bulk.message.timeout_ms == 10_000
    assert plain.message.task is None
    assert plain.key is None


def test_the_task_none_lets_the_nearest_one_answer(client: Client, responder: Responder) -> None:
    responder.answer = nearest_task
    found = client.predict(None, "abc")
    assert (found.task, found.task_confidence, found.target) == ("verbs", 0.75, "cba")
    with pytest.raises(RequestError, match="missing_task"):
        client.predict(None, "strange")
    first, strange = client.predict(None, ["abc", "strange"])
    assert (first.task, first.error) == ("verbs", None)
    assert strange.task is None
    assert strange.error is not None
    assert strange.error.code == "missing_task"
    assert client.predict("dates", "abc").task_confidence is None


def test_a_remembered_answer_names_its_pair_and_claims_no_confidence(
    client: Client, responder: Responder
) -> None:
    assert client.predict("dates", "abc").memory is None
    responder.answer = remembered
    told = client.predict("dates", "abc", n_best=2)
    assert (told.target, told.confidence, told.abstained) == ("told", None, False)
    assert told.memory is not None
    assert (told.memory.producer, told.memory.pair_id) == ("desk", "f-1")
    assert [one.confidence is None for one in told.hypotheses] == [True, False]


def test_a_series_is_sent_as_one(client: Client, responder: Responder) -> None:
    def unsupported(message: Message) -> list[Message]:
        assert isinstance(message, Request)
        error = ReplyError(code="unsupported_source")
        return [Reply(request_id=message.request_id, error=error, timings=TIMINGS)]

    responder.answer = unsupported
    with pytest.raises(RequestError, match="unsupported_source"):
        client.predict("dates", Series(times=[0.0, 1.5], values=[[1.0], [2.0]]))


def test_a_request_in_flight_is_cancelled_by_id(client: Client, responder: Responder) -> None:
    asked: dict[str, dict[str, str]] = {}

    def cancellable(message: Message) -> list[Message]:
        if isinstance(message, Control):
            assert message.request_id is not None
            error = ReplyError(code="cancelled")
            return [Reply(request_id=message.request_id, error=error, timings=TIMINGS)]
        return []

    def answer(message: Message) -> list[Message]:
        replies = cancellable(message)
        for reply in replies:
            responder.send(reply, asked["mine"])
        return []

    responder.answer = answer
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            client.predict("dates", "abc", request_id="mine")
        except RequestError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    (request,) = responder.wait_for(1, Request)
    asked["mine"] = request.headers
    with pytest.raises(InputError, match="in flight"):
        client.predict("dates", "other", request_id="mine")
    client.cancel("mine", task="dates")
    thread.join()
    (error,) = caught
    assert isinstance(error, RequestError)
    assert error.code == "cancelled"


def test_clients_on_one_partition_get_their_own_replies(responder: Responder) -> None:
    clients = [Client(settings=settings_of(responder)) for _ in range(6)]  # 4 reply partitions
    found: dict[int, list[str | None]] = {}

    def ask(number: int) -> None:
        sources = [f"{number}-{n}" for n in range(10)]
        found[number] = [p.target for p in clients[number].predict("dates", sources)]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    assert found == {n: [f"{n}-{m}"[::-1] for m in range(10)] for n in range(6)}
