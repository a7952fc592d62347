"""Records to pairs: decode, check, encode for the store; what is wrong becomes a letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from edgeseq_core import keys
from edgeseq_core.clock import Clock
from edgeseq_core.errors import MessageError
from edgeseq_core.messages import MAX_MESSAGE_BYTES, Control, Feedback, Pair, decode
from edgeseq_core.messages.fields import Identifier, TaskName
from edgeseq_core.replay import recall
from edgeseq_core.replay.buffer import IncomingPair
from edgeseq_core.replay.record import PairRecord, pack
from edgeseq_core.streams.dead_letters import Letter, Record, header
from edgeseq_core.text.vocabulary import Vocabulary

SERIES_REASON = "unsupported_source"
_NAMES: TypeAdapter[tuple[str, str, str]] = TypeAdapter(tuple[TaskName, Identifier, Identifier])


@dataclass(frozen=True, kw_only=True)
class IntakeLimits:
    """What a record may be."""

    max_message_bytes: int = 65_536
    future_clock_ms: int = 300_000
    max_tokens: int = 256  # of source and of target, as the base counts positions


@dataclass
class Taken:
    """One batch of records of one partition, sorted."""

    pairs: list[IncomingPair] = field(default_factory=list)
    controls: list[tuple[Record, Control]] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)


class Intake:
    """Turns records of one topic into pairs under the digest of vocabulary and base."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        digest: bytes,
        *,
        partitions: int,
        limits: IntakeLimits,
        clock: Clock,
    ) -> None:
        self._encode = vocabulary.encode
        self._digest = digest
        self._partitions = partitions
        self._limits = limits
        self._clock = clock
        self._place = lru_cache(maxsize=4096)(self._place_of)

    def _place_of(self, task: str) -> tuple[bytes, int]:
        return task.encode(), keys.partition_of(task, self._partitions)

    def take(self, records: Sequence[Record], kind: type[Pair | Feedback | Control]) -> Taken:
        """Sort records of one topic, whose messages are of ``kind``."""
        taken = Taken()
        now_ms = self._clock.wall_ms()
        for record in records:
            try:
                message = decode(
                    record.value or b"", kind, max_bytes=self._limits.max_message_bytes
                )
                self._check(record, message, now_ms)
                if isinstance(message, Control):
                    taken.controls.append((record, message))
                else:
                    taken.pairs.append(self._pair(record, message, now_ms))
            except MessageError as error:
                taken.letters.append(Letter(record, error.reason, error.detail))
        return taken

    def _check(self, record: Record, message: Pair | Feedback | Control, now_ms: int) -> None:
        ahead_ms = message.sent_at_ms - now_ms
        if ahead_ms > self._limits.future_clock_ms:
            raise MessageError("clock", f"sent {ahead_ms} ms in the future; set the sender's clock")
        if message.task is None or (isinstance(message, Control) and message.action == "cancel"):
            return
        key, partition = self._place(message.task)
        if record.key != key:
            raise MessageError("wrong_partition", "the record key is not the task")
        if record.partition != partition:
            raise MessageError(
                "wrong_partition",
                f"task {message.task} belongs to partition {partition} of {self._partitions}, "
                "by murmur2 over the key",
            )

    def _pair(self, record: Record, message: Pair | Feedback, now_ms: int) -> IncomingPair:
        correction = isinstance(message, Feedback)
        source, told = message.source, b""
        if isinstance(source, str):
            quarantine = ""
            stored = pack(
                PairRecord(
                    producer=message.producer,
                    pair_id=message.pair_id,
                    arrived_ms=now_ms,
                    topic=record.topic,
                    offset=record.offset,
                    correction=correction,
                    source_ids=self._tokens("source", source),
                    target_ids=self._tokens("target", message.target),
                ),
                self._digest,
            )
            if correction:
                said = recall.Remembered(message.target, message.producer, message.pair_id)
                told = recall.pack(source, said)
        else:
            quarantine, stored = SERIES_REASON, record.value or b""
        return IncomingPair(
            task=message.task,
            producer=message.producer,
            pair_id=message.pair_id,
            topic=record.topic,
            offset=record.offset,
            arrived_ms=now_ms,
            correction=correction,
            record=stored,
            quarantine=quarantine,
            told=told,
        )

    def _tokens(self, side: str, text: str) -> tuple[int, ...]:
        """Token ids; one place is kept for the end of the text.  Raises MessageError when too long."""
        ids = tuple(self._encode(text))
        if len(ids) >= self._limits.max_tokens:
            raise MessageError(
                "too_long",
                f"the {side} has {len(ids)} tokens, the base reads {self._limits.max_tokens - 1}",
            )
        return ids


def names_of(record: Record) -> tuple[str, str, str] | None:
    """Task, producer and pair id of a record that is no valid pair, as far as they are readable.

    They are taken from the JSON, else from key and headers, so that a producer who asks what became
    of its pair gets an answer.
    """
    fields: object = None
    if len(record.value or b"") <= MAX_MESSAGE_BYTES:
        try:
            fields = from_json(record.value or b"")
        except ValueError:
            fields = None
    try:
        if isinstance(fields, dict):
            named = (fields.get("task"), fields.get("producer"), fields.get("pair_id"))
            return _NAMES.validate_python(named)
        task = (record.key or b"").decode()
        ids = header(record, keys.HEADER_PRODUCER), header(record, keys.HEADER_ID)
        return _NAMES.validate_python((task, *ids))
    except (ValidationError, UnicodeDecodeError):
        return None
