"""Teaching, correcting, asking for status, deciding."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from edgeseq_core.client import Client, Example
from edgeseq_core.client.ids import new_id
from edgeseq_core.errors import MessageError
from edgeseq_core.keys import HEADER_ID, HEADER_PRODUCER
from edgeseq_core.messages import Control, Feedback, Message, Pair, StatusQuery
from tests.client.conftest import settings_of
from tests.client.responder import Responder


@pytest.mark.timeout(90)  # Apache Kafka takes seconds to start
def test_pairs_arrive_in_order_under_the_reported_ids(any_responder: Responder) -> None:
    told: list[int] = []
    with Client(settings=settings_of(any_responder), producer="tests") as client:
        pairs = [(f"source {n}", f"target {n}") for n in range(300)]
        report = client.teach("dates", iter(pairs), on_progress=told.append)
    received = any_responder.wait_for(300, Pair)
    messages = [one.message for one in received if isinstance(one.message, Pair)]
    assert [(m.source, m.target) for m in messages] == pairs
    assert tuple(m.pair_id for m in messages) == report.pair_ids
    assert {(m.producer, m.task) for m in messages} == {("tests", "dates")}
    assert {one.key for one in received} == {b"dates"}
    assert received[0].headers == {HEADER_ID: report.pair_ids[0], HEADER_PRODUCER: "tests"}
    assert (report.count, report.task, report.producer) == (300, "dates", "tests")
    assert report.seconds > 0
    assert told[-1] == 300
    assert told == sorted(told)


def test_given_ids_are_kept_and_made_ones_sort_by_time(
    client: Client, responder: Responder
) -> None:
    report = client.teach("dates", [Example("a", "b", "mine:1"), ("c", "d", None), ("e", "f")])
    assert report.pair_ids[0] == "mine:1"
    assert uuid.UUID(report.pair_ids[1]).version == 7
    first = new_id()
    assert [report.pair_ids[2][:13], first[:13]] == sorted([report.pair_ids[2][:13], first[:13]])
    assert len({new_id() for _ in range(1_000)}) == 1_000


def test_a_pair_that_is_none_is_named_by_number_and_those_before_it_arrive(
    client: Client, responder: Responder
) -> None:
    with pytest.raises(MessageError, match=r"pair 3: target") as raised:
        client.teach("dates", [("a", "b"), ("c", "d"), ("SECRET", ""), ("e", "f")])
    assert "SECRET" not in str(raised.value)
    assert raised.value.reason == "invalid"
    assert len(responder.wait_for(2, Pair)) == 2


def test_an_error_of_the_callers_iterable_is_the_callers(client: Client) -> None:
    def broken() -> Iterator[tuple[str, str]]:
        yield "a", "b"
        raise LookupError("the caller's own")

    with pytest.raises(LookupError):
        client.teach("dates", broken())


def test_a_correction_carries_all_it_needs(client: Client, responder: Responder) -> None:
    pair_id = client.correct("dates", "a", "b", request_id="r1")
    (one,) = responder.wait_for(1, Feedback)
    assert isinstance(one.message, Feedback)
    assert one.topic == responder.topics.feedback
    assert one.key == b"dates"
    expected = {"pair_id": pair_id, "producer": "tests", "request_id": "r1", "task": "dates"}
    assert expected.items() <= one.message.model_dump().items()
    assert (one.message.source, one.message.target) == ("a", "b")


def test_pair_status_is_answered(client: Client, responder: Responder) -> None:
    status = client.pair_status("dates", "tests", "p1")
    assert (status.state, status.step, status.in_champion) == ("trained", 3, True)
    (one,) = responder.wait_for(1, StatusQuery)
    assert one.topic == responder.topics.requests


def test_decisions_are_answered(client: Client, responder: Responder) -> None:
    result = client.control("promote", "dates", snapshot_id="dates-2-x", reason="better")
    assert (result.ok, result.champion) == (True, "dates-2-x")
    assert client.control("rollback", "dates").ok
    promote, _ = responder.wait_for(2, Control)
    assert isinstance(promote.message, Control)
    assert promote.message.reason == "better"
    assert promote.message.operator
    assert promote.key == b"dates"
    with pytest.raises(MessageError, match="needs snapshot_id"):
        client.control("promote", "dates")


def test_a_wrong_kind_of_answer_is_an_error(client: Client, responder: Responder) -> None:
    right = responder.answer

    def wrong(message: Message) -> list[Message]:
        assert isinstance(message, StatusQuery)
        (status,) = right(message)
        return [status.model_copy(update={"kind": "nonsense"})]

    responder.answer = wrong
    with pytest.raises(MessageError, match="wrong_kind"):
        client.pair_status("dates", "tests", "p1")
