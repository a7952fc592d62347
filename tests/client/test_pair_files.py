"""Lines to pairs: what is one, and what is said about a line that is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.client.pair_files import MalformedLine, read_pairs
from edgeseq_core.client.pairs import Example
from edgeseq_core.messages import Series


def _read(*lines: bytes) -> tuple[list[Example], list[MalformedLine]]:
    malformed: list[MalformedLine] = []
    return list(read_pairs(lines, on_malformed=malformed.append)), malformed


def test_both_forms_and_their_line_ends() -> None:
    pairs, malformed = _read(
        "\ufeffä\tb\r\n".encode(),
        b"  \n",
        b'{"source": "{", "target": "}", "pair_id": "p"}\n',
        b"{\tx",
    )
    assert pairs == [Example("ä", "b"), Example("{", "}", "p"), Example("{", "x")]
    assert malformed == []


def test_a_series_source() -> None:
    (pair,), _ = _read(b'{"source": {"times": [0, 1], "values": [[1], [2]]}, "target": "up"}')
    assert pair.source == Series(times=[0.0, 1.0], values=[[1.0], [2.0]])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"SECRET", "1 TAB-separated fields"),
        (b"a\tb\tSECRET", "3 TAB-separated fields"),
        (b"\tSECRET", "source is empty"),
        (b"SECRET\t", "target is empty"),
        (b"x" * 1025 + b"\tSECRET", "source has 1025 characters"),
        (b"SECRET\xff\tb", "byte 6 is no UTF-8"),
        (b'{"source": "SECRET"', "no valid JSON"),
        (b'{"source": "SECRET"}', "needs source and target"),
        (b'{"source": "SECRET", "target": "b", "extra": 1}', "needs source and target"),
        (b'{"source": 1, "target": "SECRET"}', "source is no text"),
        (b'{"source": "SECRET", "target": "b", "pair_id": 7}', "pair_id is no text"),
        (b'{"source": "\\ud800", "target": "SECRET"}', "surrogate"),
        (
            b'{"source": {"times": [1, 0], "values": [[1], [2]]}, "target": "a"}',
            "times must increase",
        ),
    ],
)
def test_a_line_that_is_no_pair_is_named_without_its_text(line: bytes, reason: str) -> None:
    pairs, malformed = _read(b"good\tpair\n", line, b"another\tone")
    assert [p.source for p in pairs] == ["good", "another"]
    assert [m.line for m in malformed] == [2]
    assert reason in malformed[0].reason
    assert "SECRET" not in malformed[0].reason


def test_ids_by_line_name_the_same_pair_again() -> None:
    lines = [b"a\tb", b"", b"c\td"]
    pairs = list(read_pairs(lines, on_malformed=pytest.fail, id_prefix="file"))
    assert [p.pair_id for p in pairs] == ["file:1", "file:3"]


@given(st.lists(st.binary(max_size=60)))
def test_any_bytes_are_pairs_or_malformed_or_blank(lines: list[bytes]) -> None:
    pairs, malformed = _read(*lines)
    assert len(pairs) + len(malformed) <= len(lines)


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_json_lines_are_read_back(given_pairs: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"source": s, "target": t}).encode() for s, t in given_pairs]
    pairs, malformed = _read(*lines)
    assert malformed == []
    assert [(p.source, p.target) for p in pairs] == given_pairs
