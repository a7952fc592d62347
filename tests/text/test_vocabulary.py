from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.text.vocabulary import EOS, FIRST_BYTE, SymbolTable, Vocabulary

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@given(text)
def test_any_text_comes_back_byte_for_byte(written: str) -> None:
    assert Vocabulary("abc é漢").decode(Vocabulary("abc é漢").encode(written)) == written


@given(text, st.lists(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_any_text_comes_back_with_a_symbol_table(written: str, symbols: list[str]) -> None:
    table = SymbolTable(Vocabulary("abc"), symbols)
    assert table.decode(table.encode(written)) == written


@given(text, st.text(max_size=5))
def test_symbols_added_later_never_change_what_was_stored(written: str, later: str) -> None:
    table = SymbolTable(Vocabulary("abc"), "é")
    before = table.encode(written)
    for symbol in later:
        if not 0xD800 <= ord(symbol) <= 0xDFFF:
            table.add(symbol)
    assert table.decode(before) == written


def test_digest_names_content_and_order() -> None:
    assert Vocabulary("abc").digest == Vocabulary("abc").digest
    assert Vocabulary("abc").digest != Vocabulary("acb").digest


def test_special_tokens_and_broken_bytes_decode_to_something_readable() -> None:
    vocabulary = Vocabulary("a")
    assert vocabulary.decode([EOS, *vocabulary.encode("a"), FIRST_BYTE + 0xC3]) == "a�"


def test_a_full_table_falls_back_to_bytes() -> None:
    table = SymbolTable(Vocabulary("a"), "漢字", max_symbols=1)
    assert table.symbols == ("漢",)
    assert table.decode(table.encode("漢字")) == "漢字"
