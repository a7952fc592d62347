"""docs/operations.md names metrics and sentences that exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, section
from tests.monitoring.test_dashboard import exported

PAGE = ROOT / "docs/operations.md"


def test_metrics() -> None:
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}
    named = set(re.findall(r"`(edgeseq_[a-z_]+)`", PAGE.read_text())) - {"edgeseq_core"}
    assert len(named) > 10
    assert named <= known, named - known


@pytest.mark.parametrize(
    "sentence", re.findall(r"^\| (.+?) \|", section(PAGE, "Error sentences"), re.M)[1:]
)
def test_a_sentence_is_one_that_the_code_says(sentence: str) -> None:
    """Every part between what varies stands in the code, where strings may be broken over lines."""
    code = "".join(
        file.read_text()
        for folder in ("edgeseq_core", "services")
        for file in (ROOT / folder).rglob("*.py")
    )
    joined = re.sub(r'"\s*f?"', "", code)
    for part in re.split(r"…|\bN\b|\bM\b", sentence):
        words = part.strip(" ()")
        assert words in joined, words
