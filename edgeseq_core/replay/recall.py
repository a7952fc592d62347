"""What the memory of corrections keeps: the latest corrected target of a source, word for word.

A task has such a memory while its settings say so.  Only corrections enter, in the step that accepts
them, so in Kafka order; the latest of a source replaces the one before.  The source itself is not
kept, only its digest: 16 bytes of BLAKE2b over its UTF-8.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

SOURCE_BYTES = 16


class Remembered(NamedTuple):
    """A corrected target, and the pair that said so."""

    target: str
    producer: str
    pair_id: str


def source_digest(source: str) -> bytes:
    """What a source is found by: equal only for sources that are equal to the character."""
    return hashlib.blake2b(source.encode(), digest_size=SOURCE_BYTES).digest()


def pack(source: str, told: Remembered) -> bytes:
    r"""A source's digest, then "producer\\0pair id\\0target".

    >>> told = Remembered("3 May", "desk", "f-1")
    >>> unpack(pack("3. Mai", told)[SOURCE_BYTES:]) == told
    True
    """
    return source_digest(source) + "\0".join((told.producer, told.pair_id, told.target)).encode()


def unpack(told: bytes) -> Remembered:
    """What `pack` put behind the digest."""
    producer, pair_id, target = told.decode().split("\0", 2)
    return Remembered(target, producer, pair_id)
