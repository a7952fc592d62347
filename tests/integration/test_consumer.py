"""The consumer on real brokers and a real store: nothing lost, nothing twice, bad input named."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kafka import KafkaAdminClient

from edgeseq_core.errors import BrokerUnavailableError, ConfigError
from edgeseq_core.keys import partition_of
from edgeseq_core.messages import Feedback, Series, encode
from edgeseq_core.replay.buffer import TaskSettings
from edgeseq_core.replay.rules import StoreLimits
from edgeseq_core.settings import ConsumerSettings
from edgeseq_core.streams.dead_letters import DeadLetterProducer, redrive
from edgeseq_core.streams.producer import RecordProducer
from edgeseq_core.streams.topics import create_topics
from tests.brokers import Broker
from tests.integration.consumer_rig import PARTITIONS, TASKS, Rig, broken, many, pair

pytestmark = pytest.mark.timeout(150)


def test_pairs_and_feedback_arrive_once_and_in_order(rig: Rig) -> None:
    rig.send(*many([f"p{i}" for i in range(40)]))
    fixed = pair("c1").model_dump(mode="python") | {"kind": "feedback", "request_id": "r1"}
    rig.send(Feedback(**fixed), pair("p0", task=TASKS[0]))  # the last repeats an id
    consumer, events = rig.open()
    rig.run(consumer, until=lambda: events.outcomes.total() >= 42)

    for n, task in enumerate(TASKS):
        bulk = [f"p{i}" for i in range(40) if i % len(TASKS) == n]
        assert rig.stored(task) == (["c1", *bulk] if task == "dates" else bulk)
    assert events.outcomes == {"accepted": 41, "duplicate": 1}
    outcome = rig.store.outcome("dates", "erp", "c1")
    assert outcome is not None
    assert outcome.state == "waiting"
    assert rig.position(rig.topics.pairs) == 11


NOW_MS = time.time_ns() // 1_000_000
BAD: dict[str, tuple[bytes, str]] = {
    "undecodable": (b"\xff\xfe not json", "undecodable"),
    "wrong version": (broken(pair("b1"), schema_version=7), "wrong_version"),
    "wrong kind": (broken(pair("b2"), kind="request"), "wrong_kind"),
    "source of 1 MB": (broken(pair("b3"), source="x" * 1_000_000), "too_large"),
    "source of 2000 characters": (broken(pair("b4"), source="x" * 2_000), "invalid"),
    "empty target": (broken(pair("b5"), target=""), "invalid"),
    "NaN in a series": (
        broken(pair("b6"), source={"times": [0.0], "values": [[float("nan")]]}),
        "invalid",
    ),
    "clock far in the future": (
        encode(pair("b7", sent_at_ms=NOW_MS + 86_400_000)),
        "clock",
    ),
    "key is not the task": (encode(pair("b8", task="glosses")), "wrong_partition"),
    "empty record": (b"", "undecodable"),
}


def test_bad_input_is_named_kept_and_stops_nothing(rig: Rig) -> None:
    consumer, events = rig.open()
    rig.send(pair("first"))
    for value, _ in BAD.values():
        rig.send_raw(value, headers=[("edgeseq-id", b"hdr"), ("edgeseq-producer", b"erp")])
    rig.send(pair("last"))
    rig.run(consumer, until=lambda: "last" in rig.stored("dates"))

    assert rig.stored("dates") == ["first", "last"]
    letters = rig.letters()
    assert [letter.reason for letter in letters] == [reason for _, reason in BAD.values()]
    assert [letter.size_bytes for letter in letters] == [len(value) for value, _ in BAD.values()]
    assert {letter.attempts for letter in letters} == {1}
    assert [letter.origin_offset for letter in letters] == list(range(1, len(BAD) + 1))
    assert all(letter.headers["edgeseq-id"] == "hdr" for letter in letters)
    assert events.letters.total() == len(BAD)
    assert "xxxx" not in json.dumps([letter.model_dump() for letter in letters])
    for pair_id in ("b4", "b5", "b7"):
        outcome = rig.store.outcome("dates", "erp", pair_id)
        assert outcome is not None
        assert outcome.state == "dead_lettered"
    undecodable = rig.store.outcome("dates", "erp", "hdr")
    assert undecodable is not None  # its id was in the headers


def test_a_series_is_quarantined_not_trained(rig: Rig) -> None:
    series = Series(times=[0.0, 1.0], values=[[1.0], [2.0]])
    rig.send(pair("s1", source=series), pair("p1"))
    consumer, _ = rig.open()
    rig.run(consumer, until=lambda: rig.stored("dates") == ["p1"])
    outcome = rig.store.outcome("dates", "erp", "s1")
    assert outcome is not None
    assert (outcome.state, outcome.detail) == ("quarantined", "unsupported_source")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"auto_register": False}, "unknown_task"), ({"quarantine_bytes": 10}, "quarantine_full")],
)
def test_what_the_store_refuses_is_dead_lettered(
    make_rig: Any, kafka_broker: Any, limits: dict[str, Any], reason: str
) -> None:

    rig: Rig = make_rig(kafka_broker.bootstrap, limits=StoreLimits(**limits))
    rig.store.set_task("dates", TaskSettings())
    refused = (
        pair("x1", task="glosses")
        if reason == "unknown_task"
        else pair("x1", source=Series(times=[0.0], values=[[1.0]]))
    )
    rig.send(pair("p1"), refused, pair("p2"))
    consumer, events = rig.open()
    rig.run(consumer, until=lambda: events.letters.total() == 1 and len(rig.stored()) == 2)
    (letter,) = rig.letters()
    assert letter.reason == reason
    assert rig.stored() == ["p1", "p2"]


def test_redrive_puts_a_wrong_partition_right(rig: Rig) -> None:
    right = partition_of("dates", PARTITIONS)
    rig.send_raw(encode(pair("p1")), partition=(right + 1) % PARTITIONS)
    rig.send_raw(b"junk")
    consumer, events = rig.open()
    rig.run(consumer, until=lambda: events.letters.total() == 2)
    before = rig.store.outcome("dates", "erp", "p1")
    assert before is not None
    assert before.state == "dead_lettered"

    assert len(redrive(rig.kafka)) == 2
    rig.run(consumer, until=lambda: rig.stored("dates") == ["p1"] and events.letters.total() == 3)
    (again,) = rig.letters()  # the junk came back; what was redriven is closed
    assert (again.reason, again.attempts) == ("undecodable", 2)
    with pytest.raises(ConfigError, match="no dead letter 0/99"):
        redrive(rig.kafka, names=["0/99"])


def test_a_restart_reads_on_and_repeats_nothing(rig: Rig) -> None:
    rig.send(*many([f"p{i}" for i in range(20)]))
    first, events = rig.open()
    rig.run(first, until=lambda: events.outcomes.total() == 20)
    first.close()
    rig.opened.remove(first)
    rig.send(*many([f"q{i}" for i in range(20)]))
    second, events = rig.open()
    rig.run(second, until=lambda: len(rig.stored()) == 40)
    assert events.outcomes == {"accepted": 20}
    assert events.resets == {}


def test_two_consumers_share_without_loss_or_double(rig: Rig) -> None:
    a, events_a = rig.open()
    rig.ready(a)
    sent = 0
    b, events_b = rig.open()
    deadline = time.monotonic() + 40
    while not (a.partitions and b.partitions) or len(rig.stored()) < sent:
        assert time.monotonic() < deadline
        if sent < 400:
            rig.send(*many([f"p{i}" for i in range(sent, sent + 8)]))
            sent += 8
        a.run_once(timeout_ms=20)
        b.run_once(timeout_ms=20)
    a.close()  # the rest goes to b
    rig.opened.remove(a)
    rig.send(*many([f"q{i}" for i in range(8)]))
    rig.run(b, until=lambda: len(rig.stored()) == sent + 8, timeout_s=30)
    stored = rig.stored()
    assert len(stored) == len(set(stored)) == sent + 8
    assert (events_a.outcomes + events_b.outcomes)["accepted"] == sent + 8


def test_a_fenced_consumer_changes_nothing_until_the_group_confirms_it(rig: Rig) -> None:
    consumer, events = rig.open()
    rig.ready(consumer)
    partition = partition_of("dates", PARTITIONS)
    rig.store.acquire("consumer", partition)  # as another owner would
    rig.send(pair("p1"))
    rig.run(consumer, until=lambda: partition not in consumer.partitions)
    assert rig.stored("dates") == []
    assert events.outcomes.total() == 0
    # nobody else is in the group, so after a session time-out it takes the partition back
    rig.run(consumer, until=lambda: rig.stored("dates") == ["p1"])


def test_the_position_waits_for_the_dead_letter(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def refuse(self: DeadLetterProducer, letters: Any) -> None:
        attempts.append(len(letters))
        raise BrokerUnavailableError("the broker acknowledges nothing")

    consumer, events = rig.open()
    rig.ready(consumer)
    rig.send_raw(b"junk")
    rig.send(pair("p1"), pair("g1", task="glosses"))
    with monkeypatch.context() as patched:
        patched.setattr(DeadLetterProducer, "put", refuse)
        rig.run(consumer, until=lambda: len(attempts) > 2 and rig.stored() == ["g1"])
        assert rig.position(rig.topics.pairs) == 0
        assert events.letters.total() == 0
    rig.run(consumer, until=lambda: set(rig.stored()) == {"p1", "g1"})
    assert [letter.reason for letter in rig.letters()] == ["undecodable"]
    assert rig.position(rig.topics.pairs) == 2


def test_a_missing_dead_letter_topic_loses_nothing(make_rig: Any, apache_kafka: Broker) -> None:
    rig: Rig = make_rig(apache_kafka.bootstrap)  # the embedded broker makes the topic by itself
    consumer, events = rig.open()
    rig.ready(consumer)
    with KafkaAdminClient(bootstrap_servers=rig.kafka.bootstrap) as admin:
        admin.delete_topics([rig.topics.dead_letters])
    rig.send_raw(b"junk")
    rig.send(pair("p1"))
    rig.run(consumer, until=lambda: consumer.held_records > 0, timeout_s=40)
    assert rig.position(rig.topics.pairs) == 0
    assert events.letters.total() == 0
    create_topics(rig.kafka)
    rig.run(consumer, until=lambda: rig.stored() == ["p1"], timeout_s=40)
    assert [letter.reason for letter in rig.letters()] == ["undecodable"]


def test_pairs_pause_over_budget_and_feedback_flows(make_rig: Any, kafka_broker: Any) -> None:

    rig: Rig = make_rig(
        kafka_broker.bootstrap,
        settings=ConsumerSettings(fresh_budget_bytes=PARTITIONS * 2_000, max_batch=5),
    )
    consumer, events = rig.open()
    rig.send(*[pair(f"p{i}") for i in range(200)])
    rig.run(consumer, until=lambda: events.now_paused == 1)
    waiting = len(rig.stored("dates"))
    assert 10 < waiting < 60
    fixed = pair("c1").model_dump(mode="python") | {"kind": "feedback"}
    rig.send(Feedback(**fixed))
    rig.run(consumer, until=lambda: "c1" in rig.stored("dates"))
    assert len(rig.stored("dates")) == waiting + 1
    while len(rig.store.stats("dates").pairs) and rig.stored("dates"):
        rig.store.remove("dates")  # what a learner's commit would do: make room
        rig.run(
            consumer,
            until=lambda: bool(rig.stored("dates")) or rig.position(rig.topics.pairs) == 200,
        )
        if rig.position(rig.topics.pairs) == 200:
            break
    assert events.outcomes["accepted"] == 201


def test_a_recreated_topic_is_noticed_and_read_from_its_start(rig: Rig) -> None:
    consumer, events = rig.open()
    rig.send(*[pair(f"p{i}") for i in range(5)])
    rig.run(consumer, until=lambda: len(rig.stored("dates")) == 5)
    rig.recreate(rig.topics.pairs)
    # more records than the old position, so that no offset is out of range
    rig.send(*[pair(f"q{i}") for i in range(12)])
    rig.run(
        consumer,
        until=lambda: len(rig.stored("dates")) == 17 and events.resets["pairs"] >= PARTITIONS,
        timeout_s=30,
    )
    assert rig.stored("dates")[5:] == [f"q{i}" for i in range(12)]
    assert events.resets == {"pairs": PARTITIONS}  # each partition's log, once
    consumer.close()
    rig.opened.remove(consumer)
    again, events = rig.open()
    rig.ready(again)
    assert events.resets == {}


def test_a_broker_that_comes_back_empty_is_noticed(make_rig: Any, restartable_broker: Any) -> None:

    rig: Rig = make_rig(restartable_broker.bootstrap)
    consumer, events = rig.open()
    rig.send(*[pair(f"p{i}") for i in range(5)])
    rig.run(consumer, until=lambda: len(rig.stored("dates")) == 5)
    restartable_broker.stop()
    restartable_broker.start()
    create_topics(rig.kafka)
    rig.producer.close()

    rig.producer = RecordProducer(rig.kafka, client_id="test")
    rig.send(*[pair(f"q{i}") for i in range(3)])
    rig.run(consumer, until=lambda: len(rig.stored("dates")) == 8, timeout_s=80)
    assert rig.stored("dates")[5:] == ["q0", "q1", "q2"]
    assert events.resets == {"pairs": PARTITIONS, "feedback": PARTITIONS, "control": PARTITIONS}
