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
MAX_ROWS = 512  # of targets, and as many of sources
MOST_EXTRA_TOKENS = 1_024
PLACE = "place"


def read_payload(
    payload: bytes, base_digest: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and stored arrays; raises SnapshotError for what is no calibration of this base."""
    check_size(payload)
    try:
        length = int.from_bytes(payload[:8], "little")
        text = json.loads(payload[8 : 8 + length])["__metadata__"]["header"]
        raw = load(payload)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise no_calibration(error) from None
    return read_header(text, base_digest), raw


def check_size(payload: bytes) -> None:
    """Raises SnapshotError for more bytes than any calibration has."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise SnapshotError(
            f"a snapshot of {len(payload)} bytes is over {MAX_PAYLOAD_BYTES}: refused"
        )


def read_header(text: str, base_digest: str) -> dict[str, Any]:
    """The header in a calibration's metadata; raises SnapshotError for none, or one of another base."""
    try:
        header: dict[str, Any] = json.loads(text)
        named, base = header.get("format"), header.get("base")
    except (ValueError, TypeError, AttributeError) as error:
        raise no_calibration(error) from None
    if named != FORMAT or base != base_digest:
        raise SnapshotError(
            f"the snapshot belongs to base {str(base)[:12]}, this one is {base_digest[:12]}"
        )
    return header


def no_calibration(error: Exception) -> SnapshotError:
    """What is said of bytes that are none."""
    return SnapshotError(f"these bytes are no calibration ({type(error).__name__})")


def own_rows(table: SymbolTable, rows: Sequence[int]) -> list[int]:
    """The symbols of a table that have a row; raises ValueError for none of its symbols, or one twice."""
    symbols = range(len(table))
    if len(set(rows)) < len(rows) or not all(map(symbols.__contains__, rows)):
        raise ValueError("an own row is of no symbol, or two are of one")
    return list(rows)


def extra_tokens(header: Mapping[str, Any]) -> int:
    """Task tokens beyond the base's; raises ValueError for a number that makes no sense."""
    extra = header["config"]["extra_tokens"]
    if type(extra) is not int or not 0 <= extra <= MOST_EXTRA_TOKENS:
        raise ValueError(f"{extra} extra task tokens")
    return extra


def free_rows(rows: Sequence[int], source_rows: Sequence[int], most_rows: int) -> int:
    """How many more symbols of targets may get a row; ``most_rows``: of targets and sources together."""
    return max(0, min(MAX_ROWS - len(rows), most_rows - len(rows) - len(source_rows)))


def most_rows(header: Mapping[str, Any]) -> int:
    """How many own rows there may be; raises ValueError for a number that makes no sense."""
    most = header["config"].get("most_rows", 2 * MAX_ROWS)  # snapshots of before name none
    if type(most) is not int or most < 0:
        raise ValueError(f"at most {most} own rows")
    return most


def alphabet(table: SymbolTable, rows: Sequence[int], free: int) -> list[int]:
    """What is written with characters that targets have had, EOS included; all once no row is ``free``."""
    if not free:
        return list(range(len(table)))
    known = table.vocabulary.written_with(rows)
    return sorted(known | set(range(len(table.vocabulary), len(table))))
