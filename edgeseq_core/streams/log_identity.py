"""Which log an offset counts in, and whether the stored position still lies in it.

A topic's log is named by the topic id (KIP-516), a UUID the broker makes when the topic is created:
both Apache Kafka (2.8 and newer) and the embedded broker give another one when a topic is deleted
and created again, and the embedded broker, which keeps its log in memory, after every restart.  The
cluster id need not: the embedded broker takes it from its command line.  Where a broker reports no
topic id, cluster id and topic name stand in, and only an offset outside the log shows a new one.

A log that lost its end (an unclean election) keeps its topic id while its offsets are used again;
the identity then gets a number after a dot, so that positions and pair keys stay unique.  That end is
not asked for by ListOffsets, whose answer for the latest offset is too small on the embedded broker
(the last batch's first offset plus one); what fetches say is right on both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from kafka import KafkaAdminClient

from edgeseq_core.replay.buffer import Position
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import broker_errors

LogReset = Literal["recreated", "truncated", "expired"]


class LogReader:
    """Asks the broker about topics; never creates a topic."""

    def __init__(self, admin: KafkaAdminClient, kafka: KafkaSettings) -> None:
        self._admin = admin
        self._kafka = kafka

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        """Topic -> identity of its log; a topic that does not exist is absent."""
        with broker_errors(self._kafka, "asking for topic ids"):
            found = {t["name"]: t for t in self._admin.describe_topics(list(topics))}
            present = {name: t for name, t in found.items() if not t["error_code"]}
            nameless = [name for name, t in present.items() if not _uuid(t.get("topic_id"))]
            cluster = self._admin.describe_cluster().get("cluster_id") if nameless else None
        return {
            name: _uuid(topic.get("topic_id")) or f"{cluster or 'cluster'}/{name}"
            for name, topic in present.items()
        }

    def partition_count(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        with broker_errors(self._kafka, "asking for a topic's partitions"):
            found = self._admin.describe_topics([topic])
        return sum(len(t["partitions"]) for t in found if not t["error_code"])

    def close(self) -> None:
        """Let go of the connection."""
        self._admin.close()


def _uuid(value: object) -> str:
    """The id in hex; empty for a broker that reports none (or zero)."""
    try:
        topic_id = UUID(str(value))
    except ValueError:
        return ""
    return topic_id.hex if topic_id.int else ""


@dataclass(frozen=True)
class Start:
    """Where to read on, and what happened to the log since the position was stored."""

    position: Position
    reset: LogReset | None = None
    missing: int = 0  # records known to have gone unread


def plan_start(
    stored: Position | None, log: str, beginning: int, *, truncated: bool = False
) -> Start:
    """Where to read a log whose earliest record has the offset ``beginning``.

    >>> plan_start(Position("a", 5), "a", 0).position
    Position(log='a', offset=5)
    >>> plan_start(Position("a", 5), "b", 0)
    Start(position=Position(log='b', offset=0), reset='recreated', missing=0)
    >>> plan_start(Position("a", 5), "a", 0, truncated=True)
    Start(position=Position(log='a.1', offset=0), reset='truncated', missing=0)
    >>> plan_start(Position("a", 5), "a", 7)
    Start(position=Position(log='a', offset=7), reset='expired', missing=2)
    """
    if stored is None:
        return Start(Position(log, beginning))
    if not same_log(stored, log):
        return Start(Position(log, beginning), "recreated")
    if truncated:
        lives = int(stored.log[len(log) + 1 :] or 0) + 1
        return Start(Position(f"{log}.{lives}", beginning), "truncated")
    if beginning > stored.offset:
        return Start(Position(stored.log, beginning), "expired", beginning - stored.offset)
    return Start(stored)


def same_log(position: Position, log: str) -> bool:
    """Whether a position counts in the log that the broker names ``log``."""
    return position.log == log or position.log.startswith(f"{log}.")
