"""Every topic, header and Redis key name, in one place.

The task is the record key of pairs, feedback and control; the three topics have equal, fixed partition
counts and Kafka's default partitioner (murmur2), so all that concerns a task lives in one partition.
All Redis keys of a partition carry its hash tag ``{prefix:pN}``: one script touches one partition, and
Redis Cluster works.
"""

from __future__ import annotations

from dataclasses import dataclass

from kafka.partitioner.default import murmur2

HEADER_ID = "edgeseq-id"
HEADER_PRODUCER = "edgeseq-producer"
HEADER_TRACE = "traceparent"
HEADER_REPLY_TOPIC = "edgeseq-reply-topic"
HEADER_REPLY_PARTITION = "edgeseq-reply-partition"
HEADER_REASON = "edgeseq-reason"
HEADER_DETAIL = "edgeseq-detail"
HEADER_ORIGIN = "edgeseq-origin"  # topic/partition/offset
HEADER_ATTEMPTS = "edgeseq-attempts"
HEADER_FIRST_SEEN_MS = "edgeseq-first-seen-ms"

STATE_VERSION = 1  # of everything stored in Redis; an unknown one is refused


@dataclass(frozen=True)
class Topics:
    """Topic names under a prefix."""

    prefix: str = "edgeseq"

    @property
    def pairs(self) -> str:
        return f"{self.prefix}.pairs"

    @property
    def feedback(self) -> str:
        return f"{self.prefix}.feedback"

    @property
    def control(self) -> str:
        return f"{self.prefix}.control"

    @property
    def requests(self) -> str:
        return f"{self.prefix}.requests"

    @property
    def bulk(self) -> str:
        return f"{self.prefix}.bulk"

    @property
    def replies(self) -> str:
        """The default reply topic and the allow-listed prefix of others."""
        return f"{self.prefix}.replies"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead-letters"


def partition_of(task: str, partitions: int) -> int:
    """The partition that owns a task: Kafka's default partitioner (murmur2) over the record key.

    >>> partition_of("dates", 8)
    7
    """
    return int((murmur2(task.encode()) & 0x7FFFFFFF) % partitions)


@dataclass(frozen=True)
class Keys:
    """Redis keys of one partition, all under one hash tag."""

    prefix: str
    partition: int

    def _key(self, *parts: str) -> str:
        return ":".join((f"{{{self.prefix}:p{self.partition}}}", *parts))

    # --- the partition -----------------------------------------------------------------------------
    @property
    def positions(self) -> str:
        """Hash: topic -> "log identity|next offset"."""
        return self._key("positions")

    def epoch(self, role: str) -> str:
        """Counter: the current owner of a role ("consumer", "learner")."""
        return self._key("epoch", role)

    @property
    def tasks(self) -> str:
        """Hash: task -> its settings (JSON)."""
        return self._key("tasks")

    @property
    def waiting(self) -> str:
        """Hash: task -> "corrections,bulk", the fresh pairs that wait."""
        return self._key("waiting")

    @property
    def outcomes(self) -> str:
        """Hash: pair name -> what became of the pair."""
        return self._key("outcomes")

    @property
    def seen(self) -> str:
        """Sorted set: pair name by arrival (ms); bounds the window in which ids are remembered."""
        return self._key("seen")

    @property
    def quarantine(self) -> str:
        """Hash: pair name -> the pair as it arrived, held for a person or a later version."""
        return self._key("quarantine")

    @property
    def counters(self) -> str:
        """Hash: byte and pair counters, e.g. "fresh_bytes"."""
        return self._key("counters")

    @property
    def champions(self) -> str:
        """Hash: task -> snapshot id that serves."""
        return self._key("champions")

    @property
    def relearning(self) -> str:
        """Hash: task -> branch of those that begin anew; until the learner's next offer."""
        return self._key("relearning")

    # --- one task ----------------------------------------------------------------------------------
    def part(self, task: str, part: str) -> str:
        """Sorted set: keys of the pairs in a part of the replay buffer."""
        return self.of_task(task, f"part:{part}")

    def of_task(self, task: str, name: str) -> str:
        """A task's key, e.g. ``records``, ``fresh.bulk``, ``reservoir``, ``checkpoint``, ``journal``."""
        return self._key("task", task, name)


def version_key(prefix: str) -> str:
    """The store's state version."""
    return f"{{{prefix}}}:version"


def partitions_key(prefix: str) -> str:
    """The store's partition count, fixed when the store is made."""
    return f"{{{prefix}}}:partitions"


def reply_key(prefix: str, request_id: str) -> str:
    """The cached reply of a request id."""
    return f"{prefix}:reply:{request_id}"
