"""Which own row is added to each token of a source, without torch: what every engine asks.

A character that has a row gives it to all tokens that it is written with, so that the source stays the same
tokens (one row in place of a character's bytes could not start as the identity).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeseq_core.model.payload import MAX_ROWS, own_rows
from edgeseq_core.text.vocabulary import EOS, SymbolTable, Vocabulary


class InputRows:
    """A task's rows for the characters of its sources; append-only.

    Raises ValueError for a row of no symbol, and for two of one.
    """

    def __init__(
        self, vocabulary: Vocabulary, symbols: Sequence[str] = (), rows: Sequence[int] = ()
    ) -> None:
        self.table = SymbolTable(vocabulary, symbols, max_symbols=MAX_ROWS)
        self.rows = own_rows(self.table, rows)
        self._row_of = {symbol: at for at, symbol in enumerate(self.rows)}

    @classmethod
    def of_header(cls, vocabulary: Vocabulary, header: Mapping[str, Any]) -> InputRows:
        """As a snapshot names them; older ones have none."""
        return cls(vocabulary, header.get("source_symbols", ()), header.get("source_rows", ()))

    def admit(self, sources: Iterable[str], room: int = MAX_ROWS) -> int:
        """Give every character of the sources a row, while there is room; returns how many there are more."""
        before = len(self.rows)
        most = min(MAX_ROWS, before + room)
        for character in dict.fromkeys("".join(sources)):
            if len(self.rows) >= most:
                break
            self.table.add(character)
            for symbol in self.table.of_source(character):
                if symbol not in self._row_of and len(self.rows) < most:
                    self._row_of[symbol] = len(self.rows)
                    self.rows.append(symbol)
        return len(self.rows) - before

    def of(self, source: str) -> list[int]:
        """1 + the row of each token of a source, EOS among them; 0 where it has none.

        >>> rows = InputRows(Vocabulary("ab"))
        >>> rows.admit(["bé"]), rows.of("aéb")
        (2, [0, 2, 2, 1, 0])
        """
        return [1 + self._row_of.get(symbol, -1) for symbol in [*self.table.of_source(source), EOS]]
