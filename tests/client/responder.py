"""A predictor in small: reads real requests from the broker and replies what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from edgeseq_core.keys import (
    HEADER_ID,
    HEADER_REPLY_PARTITION,
    HEADER_REPLY_TOPIC,
    Topics,
)
from edgeseq_core.messages import (
    Control,
    ControlResult,
    Feedback,
    Hypothesis,
    Message,
    Pair,
    PairName,
    PairStatus,
    Reply,
    ReplyError,
    Request,
    StatusQuery,
    Timings,
    decode,
    encode,
)

TIMINGS = Timings(queue_ms=0.1, compute_ms=1.0, total_ms=1.1)
PARTITIONS = 2


def create_topics(bootstrap: str, prefix: str) -> Topics:
    """The topics a client uses, small."""
    topics = Topics(prefix)
    named = [topics.pairs, topics.feedback, topics.control, topics.requests, topics.bulk]
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        present = set(admin.list_topics())
        wanted = [NewTopic(name, PARTITIONS, 1) for name in named] + [
            NewTopic(topics.replies, 4, 1)
        ]
        admin.create_topics([topic for topic in wanted if topic.name not in present])
    return topics


def reversed_source(message: Message) -> list[Message]:
    """A right answer to each kind of question; a request's is its source reversed."""
    if isinstance(message, Request):
        return [reply_to(message)]
    if isinstance(message, StatusQuery):
        asked = {name: getattr(message, name) for name in ("request_id", "producer", "pair_id")}
        return [PairStatus(**asked, task=message.task, state="trained", step=3, in_champion=True)]
    if isinstance(message, Control) and message.action != "cancel":
        return [
            ControlResult(
                control_id=message.control_id,
                action=message.action,
                ok=True,
                task=message.task,
                champion=message.snapshot_id or "dates-1-abc",
            )
        ]
    return []


def silent(message: Message) -> list[Message]:
    """No answer."""
    return []


def nearest_task(message: Message) -> list[Message]:
    """Requests that name no task belong to "verbs", but for a strange source."""
    assert isinstance(message, Request)
    if message.task is not None:
        return [reply_to(message)]
    if message.source == "strange":
        error = ReplyError(code="missing_task", detail="name its task")
        return [Reply(request_id=message.request_id, error=error, timings=TIMINGS)]
    return [reply_to(message, task="verbs", task_confidence=0.75)]


def remembered(message: Message) -> list[Message]:
    """What the pair "f-1" of "desk" said, then an answer of the model's."""
    assert isinstance(message, Request)
    said = [Hypothesis(target="told", score=None), Hypothesis(target="made", score=-0.25)]
    pair = PairName(producer="desk", pair_id="f-1")
    return [reply_to(message, hypotheses=said, confidence=None, memory=pair)]


def reply_to(request: Request, **changes: Any) -> Reply:
    """A reply to ``request`` from snapshot ``dates-1-abc``."""
    assert isinstance(request.source, str)
    fields: dict[str, Any] = {
        "request_id": request.request_id,
        "task": request.task,
        "hypotheses": [Hypothesis(target=request.source[::-1], score=-0.1)],
        "confidence": 0.9,
        "snapshot_id": "dates-1-abc",
        "timings": TIMINGS,
    }
    return Reply(**{**fields, **changes})


@dataclass
class Received:
    """A record as it came, and its message."""

    topic: str
    key: bytes | None
    value: bytes
    headers: dict[str, str]
    message: Message


@dataclass
class Responder:
    """Answers in a thread until closed; ``answer`` may be replaced by the test."""

    bootstrap: str
    topics: Topics
    answer: Callable[[Message], list[Message]] = reversed_source
    received: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        self._stop = threading.Event()
        self._producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        self._consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=5
        )
        t = self.topics
        partitions = [
            TopicPartition(name, number)
            for name in (t.pairs, t.feedback, t.control, t.requests, t.bulk)
            for number in range(PARTITIONS)
        ]
        self._consumer.assign(partitions)
        self._consumer.seek_to_beginning(*partitions)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        self._producer.close(timeout=1)

    def wait_for(self, count: int, kind: type[Message], timeout_s: float = 10) -> list[Received]:
        """The records of a kind, once there are ``count``."""

        def found() -> list[Received]:
            return [one for one in self.received if isinstance(one.message, kind)]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, timeout_s), found()
        return found()

    def _run(self) -> None:
        kinds = (Pair, Feedback, Request, StatusQuery, Control)
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=50).values():
                for record in records:
                    headers = {name: value.decode() for name, value in record.headers}
                    message = decode(record.value, *kinds)
                    for answer in self.answer(message):
                        self.send(answer, headers)
                    one = Received(record.topic, record.key, record.value, headers, message)
                    with self.changed:
                        self.received.append(one)
                        self.changed.notify_all()

    def send(self, answer: Message, headers: dict[str, str]) -> None:
        """Reply to where the record's headers say."""
        self._producer.send(
            headers[HEADER_REPLY_TOPIC],
            encode(answer),
            partition=int(headers[HEADER_REPLY_PARTITION]),
            headers=[(HEADER_ID, headers[HEADER_ID].encode())],
        )
