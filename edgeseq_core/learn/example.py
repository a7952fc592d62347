"""A pair as the learner sees it: text, where it came from, and the numbers its key decides."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgeseq_core.replay.buffer import Part, StoredPair
from edgeseq_core.replay.record import unpack
from edgeseq_core.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Example:
    """One pair out of the buffer."""

    key: str
    part: Part
    source: str
    target: str
    topic: str
    offset: int
    arrived_ms: int
    priority: float  # place in probe and reservoir, uniform in [0, 1), decided by the key
    draw: float  # a second such number: elects held-out pairs
    note: bytes = b""  # of a replayed pair: what the strategy keeps beside it


def read_example(pair: StoredPair, vocabulary: Vocabulary, digest: bytes) -> Example:
    """Decode a stored pair; raises StateVersionError when another tokenizer or base wrote it."""
    record = unpack(pair.record, digest)
    words = hashlib.blake2b(pair.key.encode(), digest_size=16).digest()
    return Example(
        key=pair.key,
        part=pair.part,
        source=vocabulary.decode(record.source_ids),
        target=vocabulary.decode(record.target_ids),
        topic=record.topic,
        offset=record.offset,
        arrived_ms=record.arrived_ms,
        priority=int.from_bytes(words[:7], "big") / 2**56,
        draw=int.from_bytes(words[8:15], "big") / 2**56,
        note=pair.note,
    )
