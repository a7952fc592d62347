"""Reply addresses: allow-listed, existing, and cheap to refuse."""

from __future__ import annotations

import pytest

from edgeseq_core.keys import HEADER_REPLY_PARTITION, HEADER_REPLY_TOPIC, Topics
from edgeseq_core.serving.addresses import ReplyAddresses
from edgeseq_core.serving.queued import ReplyAddress
from edgeseq_core.testing.clock import FakeClock


class Broker:
    def __init__(self) -> None:
        self.topics = {"e.replies": {0, 1}, "e.replies.team": {0}, "e.pairs": {0}}
        self.asked: list[str] = []

    def partitions_of(self, topic: str) -> set[int] | None:
        self.asked.append(topic)
        return self.topics.get(topic)


def headers(topic: str | None, partition: str | None) -> list[tuple[str, bytes]]:
    named = [(HEADER_REPLY_TOPIC, topic), (HEADER_REPLY_PARTITION, partition)]
    return [(name, value.encode()) for name, value in named if value is not None]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def addresses(broker: Broker, clock: FakeClock) -> ReplyAddresses:
    return ReplyAddresses(Topics("e"), broker.partitions_of, clock)


@pytest.mark.parametrize(("topic", "partition"), [("e.replies", 1), ("e.replies.team", 0)])
def test_allowed(addresses: ReplyAddresses, topic: str, partition: int) -> None:
    assert addresses.read(headers(topic, str(partition))) == ReplyAddress(topic, partition)


@pytest.mark.parametrize(
    ("topic", "partition"),
    [
        (None, "0"),
        ("e.replies", None),
        ("e.replies", "-1"),
        ("e.replies", "٣"),
        ("e.replies", "9" * 30),
        ("e.pairs", "0"),
        ("e.repliesX", "0"),
        ("", "0"),
    ],
)
def test_refused_without_asking_the_broker(
    addresses: ReplyAddresses, broker: Broker, topic: str | None, partition: str | None
) -> None:
    assert addresses.read(headers(topic, partition)) is None
    assert broker.asked == []


def test_what_does_not_exist_is_asked_for_once_a_while(
    addresses: ReplyAddresses, broker: Broker, clock: FakeClock
) -> None:
    for _ in range(3):
        assert addresses.read(headers("e.replies.new", "0")) is None
        assert addresses.read(headers("e.replies", "7")) is None
    assert len(broker.asked) == 2
    broker.topics["e.replies.new"] = {0}
    clock.advance(6)
    assert addresses.read(headers("e.replies.new", "0")) == ReplyAddress("e.replies.new", 0)
    assert addresses.read(headers("e.replies", "1")) == ReplyAddress("e.replies", 1)


def test_a_header_that_is_no_text_is_no_address(addresses: ReplyAddresses) -> None:
    broken = [(HEADER_REPLY_TOPIC, b"\xff\xfe"), (HEADER_REPLY_PARTITION, b"0")]
    assert addresses.read(broken) is None
