"""Answers are scored as their field does: any right answer, phones, characters."""

from __future__ import annotations

import pytest

from edgeseq_core.corpus.streams import Question
from edgeseq_core.evaluate.quality import chrf, phone_error_rate, quality
from tests.corpus.need import need

need("rapidfuzz", "sacrebleu")
WORDS = [Question("read", ("R IY D", "R EH D")), Question("a", ("AH",))]


def test_any_right_answer_counts() -> None:
    assert quality("phones", ["R EH D", "AH AH"], WORDS) == (50.0, 75.0)
    assert quality("exact", ["R IY D", "AH"], WORDS) == (100.0, 100.0)


def test_phone_errors_are_edits_to_the_nearest_right_answer() -> None:
    assert phone_error_rate(["A B"], [Question("ab", ("A B C D",))]) == 50
    assert phone_error_rate(["R EH", "AH"], WORDS) == pytest.approx(25)


def test_chrf_is_sacrebleus() -> None:
    asked = [Question("x", ("ključ",)), Question("y", ("brava",))]
    assert chrf(["ključ", "brava"], asked) == 100
    exact, detail = quality("text", ["kljuc", "brava"], asked)
    assert exact == 50
    assert 50 < detail < 100
