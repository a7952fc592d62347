"""Subwords: lossless, shorter than characters, and in step with a task's own characters."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.errors import MissingExtraError
from edgeseq_core.text.subwords import Subwords, learn_subwords
from edgeseq_core.text.vocabulary import EOS, SymbolTable

LETTERS = "abcdefghijklmnopqrstuvwxyz é漢<>0"
TEXTS = ["the cat sat on the mat", "the chat was there then", "é漢é漢 the"] * 5
SUBWORDS = learn_subwords(TEXTS, LETTERS, pieces=20)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
near = st.text(st.sampled_from("the catsmon é漢<0x41>\n\tßü"), max_size=40)


@given(text | near)
def test_any_text_comes_back_byte_for_byte(written: str) -> None:
    assert SUBWORDS.decode(SUBWORDS.encode(written)) == written


@given(near)
def test_own_characters_split_a_text_where_its_encoding_does(written: str) -> None:
    table = SymbolTable(SUBWORDS, "ßü")
    assert table.decode(table.encode(written)) == written
    assert len(table.of_source(written)) == len(SUBWORDS.encode(written))


def test_no_piece_is_taken_for_a_byte() -> None:
    learnt = learn_subwords(["<0x41>"] * 9, "<0x41>", pieces=9)
    assert "<0x41>" not in learnt.pieces
    assert learnt.decode(learnt.encode("<0x41> A")) == "<0x41> A"
    with pytest.raises(ValueError, match="how a byte is named"):
        Subwords("<0x41>", [(0, 1), (6, 2), (7, 3), (8, 4), (9, 5)])


def test_a_text_like_those_it_learnt_from_is_shorter() -> None:
    assert len(SUBWORDS.pieces) == len(LETTERS) + 20
    assert len(SUBWORDS.encode("the cat sat there")) <= len("the cat sat there") / 2


def test_the_same_texts_make_the_same_vocabulary_and_its_parts_make_it_again() -> None:
    again = learn_subwords(list(TEXTS), LETTERS, pieces=20)
    built = Subwords(SUBWORDS.characters, [list(pair) for pair in SUBWORDS.merges])  # type: ignore[misc]
    assert again.digest == built.digest == SUBWORDS.digest
    assert built.pieces == SUBWORDS.pieces
    assert learn_subwords(TEXTS, LETTERS, pieces=19).digest != SUBWORDS.digest


def test_pieces_of_the_same_characters_go_together() -> None:
    written = SUBWORDS.written_with([EOS, *SUBWORDS.encode("the")])
    pieces = {SUBWORDS.decode([at]) for at in written - {EOS}}
    assert {"t", "h", "e", "he", "the"} <= pieces
    assert all(set(piece) <= set("the") for piece in pieces)
    assert EOS in written


@pytest.mark.parametrize("merge", [(0, 3), (-1, 0)])
def test_a_merge_of_what_is_not_there_is_refused(merge: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="come before"):
        Subwords("abc", [merge])


def test_without_tokenizers_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"edgeseq\[subwords\]"):
        Subwords("abc", [(0, 1)])
