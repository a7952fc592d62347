"""Bytes that were once on a topic stay readable: one file per message and schema version."""

from pathlib import Path

import pytest

from edgeseq_core.messages import KINDS, decode, encode

from .examples import EXAMPLES

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_written_bytes_have_not_changed(name: str) -> None:
    assert encode(EXAMPLES[name]) == (GOLDEN / f"{name}.json").read_bytes().strip()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda p: p.stem)
def test_stored_bytes_are_still_read(path: Path) -> None:
    expected = EXAMPLES[path.stem]
    assert decode(path.read_bytes(), type(expected)) == expected
    assert decode(path.read_bytes()) == expected


def test_every_kind_has_a_golden_file() -> None:
    assert {m.kind for m in EXAMPLES.values()} == set(KINDS)
