"""A snapshot's bytes as plain arrays, checked, without torch: what every engine reads first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from edgeseq_core.errors import SnapshotError
from edgeseq_core.text.vocabulary import SymbolTable

FORMAT = "edgeseq-calibration-1"
MAX_PAYLOAD_BYTES = 8 << 20
MAX_ROWS = 512
MOST_EXTRA_TOKENS = 1_024
PLACE = "place"


def read_payload(
    payload: bytes, base_digest: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and stored arrays; raises SnapshotError for what is no calibration of this base."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise SnapshotError(
            f"a snapshot of {len(payload)} bytes is over {MAX_PAYLOAD_BYTES}: refused"
        )
    try:
        length = int.from_bytes(payload[:8], "little")
        header = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["header"])
        raw = load(payload)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SnapshotError(f"these bytes are no calibration ({type(error).__name__})") from None
    if header.get("format") != FORMAT or header.get("base") != base_digest:
        raise SnapshotError(
            f"the snapshot belongs to base {str(header.get('base'))[:12]}, this one is {base_digest[:12]}"
        )
    return header, raw


def own_rows(table: SymbolTable, rows: Sequence[int]) -> list[int]:
    """The symbols of a table that have a row; raises ValueError for none of its symbols, or one twice."""
    symbols = range(len(table))
    if len(set(rows)) < len(rows) or any(row not in symbols for row in rows):
        raise ValueError("an own row is of no symbol, or two are of one")
    return list(rows)


def extra_tokens(header: Mapping[str, Any]) -> int:
    """Task tokens beyond the base's; raises ValueError for a number that makes no sense."""
    extra = header["config"]["extra_tokens"]
    if type(extra) is not int or not 0 <= extra <= MOST_EXTRA_TOKENS:
        raise ValueError(f"{extra} extra task tokens")
    return extra


def alphabet(table: SymbolTable, rows: Sequence[int]) -> list[int]:
    """What is written with characters that targets have had, EOS included; all once no row is free."""
    if len(rows) >= MAX_ROWS:
        return list(range(len(table)))
    known = table.vocabulary.written_with(rows)
    return sorted(known | set(range(len(table.vocabulary), len(table))))
