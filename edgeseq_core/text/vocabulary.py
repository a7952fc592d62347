"""Text to token ids and back, byte for byte.

A **vocabulary** belongs to a base: three special tokens, 256 byte tokens, then pieces of text: Unicode
characters, and with `Subwords` what is merged of them.  A character that it does not know is written as
its UTF-8 bytes, so no text is unrepresentable.  A task
adds characters of its own in a **symbol table** that only ever grows, so ids never change meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

PAD, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
FIRST_CHARACTER = FIRST_BYTE + 256


class Vocabulary:
    """The characters a base knows; immutable, named by its digest.

    >>> v = Vocabulary("abc")
    >>> v.encode("cab")
    [261, 259, 260]
    >>> v.encode("aé")          # é is unknown here: two UTF-8 bytes
    [259, 198, 172]
    >>> v.decode([259, 198, 172])
    'aé'
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters: tuple[str, ...] = tuple(characters)
        self.pieces = self.characters  # what ids stand for, from FIRST_CHARACTER on
        self._ids = {c: FIRST_CHARACTER + i for i, c in enumerate(self.characters)}
        if len(self._ids) != len(self.characters) or any(len(c) != 1 for c in self.characters):
            raise ValueError("a vocabulary lists each character once, one code point each")
        self.digest = hashlib.sha256(
            json.dumps(["edgeseq-vocabulary-1", self.characters]).encode()
        ).hexdigest()

    def __len__(self) -> int:
        return FIRST_CHARACTER + len(self.pieces)

    def __contains__(self, character: str) -> bool:
        return character in self._ids

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without BOS or EOS."""
        found = list(map(self._ids.get, text))
        if None not in found:  # the common case, without a loop of Python's own
            return found  # type: ignore[return-value]
        ids: list[int] = []
        for character in text:
            known = self._ids.get(character)
            if known is not None:
                ids.append(known)
            else:
                ids.extend(FIRST_BYTE + byte for byte in character.encode())
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; special tokens are dropped, broken byte runs become U+FFFD."""
        return _join(ids, self.pieces)

    def written_with(self, ids: Iterable[int]) -> set[int]:
        """``ids``, and those of all pieces that are made of their characters."""
        return set(ids)


class SymbolTable:
    """A vocabulary and the task's own characters after it; append-only.

    >>> t = SymbolTable(Vocabulary("abc"))
    >>> t.add("é")
    True
    >>> t.encode("aé"), len(t)
    ([259, 262], 263)
    >>> t.decode([259, 262])
    'aé'

    Raises ValueError for a symbol that is not one character.
    """

    def __init__(
        self, vocabulary: Vocabulary, symbols: Sequence[str] = (), *, max_symbols: int = 512
    ) -> None:
        self.vocabulary = vocabulary
        self.max_symbols = max_symbols
        self._symbols: list[str] = []
        self._ids: dict[str, int] = {}
        for symbol in symbols:
            if len(symbol) != 1:
                raise ValueError("a symbol of its own is not one character")
            self.add(symbol)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The task's own characters in the order they were met."""
        return tuple(self._symbols)

    def __len__(self) -> int:
        return len(self.vocabulary) + len(self._symbols)

    def add(self, character: str) -> bool:
        """Give ``character`` an id unless it has one; False when it had one or the table is full."""
        known = character in self.vocabulary or character in self._ids
        if known or len(self._symbols) >= self.max_symbols:
            return False
        self._ids[character] = len(self)
        self._symbols.append(character)
        return True

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``: own characters by their own ids, others as the vocabulary does."""
        if not self._ids:
            return self.vocabulary.encode(text)
        ids: list[int] = []
        for run, own in self._runs(text):
            ids.extend(self.vocabulary.encode(run) if own is None else [own])
        return ids

    def of_source(self, text: str) -> list[int]:
        """The target symbol that each token of a source stands for, as long as the source's encoding.

        An own character is as many tokens of the source as it has bytes, each of which stands for it.

        >>> t = SymbolTable(Vocabulary("abc"), ["é"])
        >>> t.vocabulary.encode("aéü"), t.of_source("aéü")
        ([259, 198, 172, 198, 191], [259, 262, 262, 198, 191])
        """
        if not self._ids:
            return self.vocabulary.encode(text)
        ids: list[int] = []
        for run, own in self._runs(text):
            ids.extend(self.vocabulary.encode(run) if own is None else [own] * len(run.encode()))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``."""
        return _join(ids, self.vocabulary.pieces, self._symbols)

    def _runs(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Own characters with their ids, and what lies between them."""
        start = 0
        for at, character in enumerate(text):
            own = self._ids.get(character)
            if own is not None:
                if start < at:
                    yield text[start:at], None
                yield character, own
                start = at + 1
        if start < len(text):
            yield text[start:], None


def _join(ids: Iterable[int], pieces: Sequence[str], own: Sequence[str] = ()) -> str:
    out, known = bytearray(), FIRST_CHARACTER + len(pieces)
    for token in ids:
        if token >= known:
            out += own[token - known].encode()
        elif token >= FIRST_CHARACTER:
            out += pieces[token - FIRST_CHARACTER].encode()
        elif token >= FIRST_BYTE:
            out.append(token - FIRST_BYTE)
    return out.decode("utf-8", errors="replace")
