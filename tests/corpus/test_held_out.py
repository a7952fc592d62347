"""The held-out rule: one in ten, blind to case and punctuation, fixed for ever."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.corpus.held_out import fold, is_held_out


@given(st.text(max_size=40))
def test_folding_twice_changes_nothing_for_plain_text(text: str) -> None:
    folded = fold(text)
    assert folded == " ".join(folded.split())
    # Lower-casing is not idempotent for a handful of characters, so only ASCII is promised.
    if text.isascii():
        assert fold(folded) == folded


def test_case_and_punctuation_do_not_move_an_item() -> None:
    for word in ("hablar", "Straße", "día", "слово"):
        assert is_held_out(word) == is_held_out(f" {word.upper().lower()}?! ")


def test_the_rule_is_md5_of_the_folded_text_modulo_ten() -> None:
    for word in (f"Wort{n}" for n in range(200)):
        expected = int(hashlib.md5(word.lower().encode()).hexdigest(), 16) % 10 == 0
        assert is_held_out(word) == expected


def test_about_a_tenth_is_held_out() -> None:
    share = sum(is_held_out(f"item {n}") for n in range(20_000)) / 20_000
    assert 0.09 < share < 0.11
