"""The small binary record in which a pair is stored once, and the names it goes by.

Token ids are the base vocabulary's, so the text comes back byte for byte.  Layout, little-endian::

    version u8 · digest 8 bytes · flags u8 · arrived_ms u64 · offset u64
    lengths: producer u8 · pair_id u8 · topic u8 · source u16 · target u16 (tokens)
    producer · pair_id · topic (UTF-8) · source ids · target ids (u16; u32 when flagged wide)
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgeseq_core.errors import StateVersionError, StoreError

RECORD_VERSION = 1
DIGEST_BYTES = 8
NAME_BYTES = 16
_HEADER = struct.Struct("<B8sBQQBBBHH")
_CORRECTION, _WIDE = 1, 2
TOO_LONG = "too_long"  # why a change of base holds a pair


class _Header(NamedTuple):
    version: int
    digest: bytes
    flags: int
    arrived_ms: int
    offset: int
    producer_bytes: int
    pair_id_bytes: int
    topic_bytes: int
    sources: int
    targets: int


@dataclass(frozen=True, kw_only=True)
class PairRecord:
    """A pair as token ids, with its names and Kafka coordinates."""

    producer: str
    pair_id: str
    arrived_ms: int
    topic: str
    offset: int
    correction: bool
    source_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


def pack(record: PairRecord, digest: bytes) -> bytes:
    """The bytes under an 8-byte digest of vocabulary and base; ValueError when out of range.

    >>> pair = PairRecord(producer="p", pair_id="1", arrived_ms=5, topic="pairs", offset=7,
    ...                   correction=False, source_ids=(300, 301), target_ids=(70_000,))
    >>> unpack(pack(pair, b"12345678"), b"12345678") == pair
    True
    """
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"a record's digest has {DIGEST_BYTES} bytes, not {len(digest)}")
    ids = record.source_ids + record.target_ids
    texts = (record.producer.encode(), record.pair_id.encode(), record.topic.encode())
    try:
        tokens, wide = _narrow(ids)
        header = _HEADER.pack(
            RECORD_VERSION,
            digest,
            _CORRECTION * record.correction | _WIDE * wide,
            record.arrived_ms,
            record.offset,
            *map(len, texts),
            len(record.source_ids),
            len(record.target_ids),
        )
    except (struct.error, OverflowError) as error:
        raise ValueError(f"pair {record.pair_id!r} does not fit a record: {error}") from error
    return b"".join((header, *texts, tokens))


def _narrow(ids: tuple[int, ...]) -> tuple[bytes, bool]:
    """Token ids in two bytes each, else in four; an array is several times faster than a struct."""
    wide = False
    try:
        tokens = array("H", ids)
    except OverflowError:
        tokens, wide = array("I", ids), True
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens.tobytes(), wide


def unpack(data: bytes, digest: bytes) -> PairRecord:
    """Read a record; StateVersionError for another version or digest, StoreError when damaged."""
    header, texts, rest = _open(data)
    if header.digest != digest:
        raise StateVersionError(
            f"a stored pair was encoded for base {header.digest.hex()}, this one is "
            f"{digest.hex()}: start with the base the store was filled under, or change it "
            "with `edgeseq base change`"
        )
    letter = "I" if header.flags & _WIDE else "H"
    ids: tuple[int, ...] = struct.unpack(f"<{header.sources + header.targets}{letter}", rest)
    return PairRecord(
        producer=texts[0],
        pair_id=texts[1],
        arrived_ms=header.arrived_ms,
        topic=texts[2],
        offset=header.offset,
        correction=bool(header.flags & _CORRECTION),
        source_ids=ids[: header.sources],
        target_ids=ids[header.sources :],
    )


def digest_of(data: bytes) -> bytes:
    """The 8-byte digest of vocabulary and base that a record was written under; errors as `unpack`."""
    return _open(data)[0].digest


def owner_of(data: bytes) -> tuple[str, str]:
    """Producer and pair id of a record of any base; errors as `unpack`."""
    texts = _open(data)[1]
    return texts[0], texts[1]


def _open(data: bytes) -> tuple[_Header, list[str], bytes]:
    """The header, the three names, and the bytes of the token ids."""
    if not data or data[0] != RECORD_VERSION:
        found = data[0] if data else "none"
        raise StateVersionError(
            f"a stored pair has record version {found}, this program knows {RECORD_VERSION}: "
            "use the program version that wrote it"
        )
    if len(data) < _HEADER.size:
        raise _damaged(data)
    header = _Header(*_HEADER.unpack_from(data))
    names = (header.producer_bytes, header.pair_id_bytes, header.topic_bytes)
    width = 4 if header.flags & _WIDE else 2
    tokens = header.sources + header.targets
    if len(data) != _HEADER.size + sum(names) + tokens * width:
        raise _damaged(data)
    texts, at = [], _HEADER.size
    for length in names:
        texts.append(data[at : at + length])
        at += length
    try:
        return header, [text.decode() for text in texts], data[at:]
    except UnicodeDecodeError as error:
        raise _damaged(data) from error


def _damaged(data: bytes) -> StoreError:
    return StoreError(
        f"a stored pair of {len(data)} bytes is damaged: restore the store or remove the pair"
    )


# --- names ----------------------------------------------------------------------------------------


def pair_key(log: str, topic: str, offset: int) -> str:
    """The key that names a pair for ever: its Kafka coordinates.

    >>> pair_key("c1", "edgeseq.feedback", 12)
    'c1:f:12'
    """
    return f"{log}:{topic.rpartition('.')[2][:1]}:{offset}"


def pair_name(task: str, producer: str, pair_id: str) -> bytes:
    """The 16-byte digest under which a producer's pair id is remembered."""
    text = f"{task}\0{producer}\0{pair_id}"
    return hashlib.blake2b(text.encode(), digest_size=NAME_BYTES).digest()


# --- quarantined pairs ----------------------------------------------------------------------------


def pack_quarantined(names: Sequence[str], reason: str, message: bytes) -> bytes:
    """A held pair: (task, producer, pair id), why it is held, and the message as it arrived."""
    return b"\0".join((*(name.encode() for name in names), reason.encode(), message))


def pack_held(names: Sequence[str], key: str, record: bytes) -> bytes:
    """A stored pair that does not fit a new base, as the quarantine holds it: still in the old words."""
    return pack_quarantined(names, TOO_LONG, key.encode() + b"\0" + record)


def unpack_held(data: bytes) -> tuple[str, str, bytes] | None:
    """Task, key and record of a pair that `pack_held` made; None for another one."""
    names, reason, message = unpack_quarantined(data)
    if reason != TOO_LONG:
        return None
    key, record = message.split(b"\0", 1)
    return names[0], key.decode(), record


def unpack_quarantined(data: bytes) -> tuple[tuple[str, str, str], str, bytes]:
    """The names, the reason and the message of a held pair."""
    task, producer, pair_id, reason, message = data.split(b"\0", 4)
    return (task.decode(), producer.decode(), pair_id.decode()), reason.decode(), message
