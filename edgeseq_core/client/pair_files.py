"""Pairs from lines of text: source TAB target, or one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edgeseq_core.client.pairs import Example
from edgeseq_core.messages import MAX_TEXT_CHARACTERS, Series, Source


@dataclass(frozen=True)
class MalformedLine:
    """A line that is no pair; the reason names sizes, never the text."""

    line: int  # from 1
    reason: str


class _NoPairError(Exception):
    """Why a line is no pair."""


def read_pairs(
    lines: Iterable[bytes],
    *,
    on_malformed: Callable[[MalformedLine], None],
    id_prefix: str | None = None,
) -> Iterator[Example]:
    """The pairs in ``lines``, as they come; empty lines are skipped, wrong ones reported.

    With ``id_prefix`` a pair's id is "<prefix>:<line>", so that the same file sent again is known.
    A JSON object may carry its own ``pair_id``, and a series ({"times", "values"}) as its source.

    >>> lines = [b"a\\tb\\n", b"\\n", b'{"source": "c", "target": "d"}']
    >>> list(read_pairs(lines, on_malformed=print))
    [Example(source='a', target='b', pair_id=None), Example(source='c', target='d', pair_id=None)]
    """
    for number, line in enumerate(lines, start=1):
        try:
            example = _parse(line)
        except _NoPairError as error:
            on_malformed(MalformedLine(number, str(error)))
            continue
        if example is None:
            continue
        if id_prefix is not None and example.pair_id is None:
            example = example._replace(pair_id=f"{id_prefix}:{number}")
        yield example


def _parse(line: bytes) -> Example | None:
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _NoPairError(f"byte {error.start} is no UTF-8") from None
    if not text.strip():
        return None
    if text.startswith("{") and "\t" not in text:
        return _from_json(text)
    fields = text.split("\t")
    if len(fields) != 2:
        raise _NoPairError(f"{len(fields)} TAB-separated fields, 2 are needed: source and target")
    return Example(_checked("source", fields[0]), _checked("target", fields[1]))


def _from_json(text: str) -> Example:
    try:
        fields = json.loads(text)
    except ValueError:
        raise _NoPairError("no valid JSON object") from None
    unknown = set(fields) - {"source", "target", "pair_id"}
    if unknown or not {"source", "target"} <= set(fields):
        raise _NoPairError("a JSON object needs source and target and may have pair_id, no more")
    source: Source
    if isinstance(fields["source"], dict):
        source = _series(fields["source"])
    else:
        source = _checked("source", fields["source"])
    pair_id = fields.get("pair_id")
    if pair_id is not None and not isinstance(pair_id, str):
        raise _NoPairError("pair_id is no text")
    return Example(source, _checked("target", fields["target"]), pair_id)


def _series(fields: dict[str, Any]) -> Series:
    try:
        return Series.model_validate(fields)
    except ValidationError as error:
        raise _NoPairError(f"source is no series: {error.errors()[0]['msg']}") from None


def _checked(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise _NoPairError(f"{field} is no text")
    if not value:
        raise _NoPairError(f"{field} is empty")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise _NoPairError(
            f"{field} has {len(value)} characters, at most {MAX_TEXT_CHARACTERS} are taken"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _NoPairError(f"{field} holds half a character (a lone surrogate)") from None
    return value
