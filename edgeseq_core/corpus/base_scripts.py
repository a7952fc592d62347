"""Pretraining tasks: the same word in another script."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.base_names import catalogue
from edgeseq_core.corpus.examples import BaseTask, Example
from edgeseq_core.corpus.words import words

ROMANIZED = ("ru", "el", "hy", "ka", "hi", "he", "ar", "ml", "uk")
# Word list -> code of the alphabet in cyrtranslit.
CYRILLIC = {"bg": "bg", "mk": "mk", "ru": "ru", "uk": "ua"}


def _romanized(language: str) -> Iterator[Example]:
    anyascii = packages.load("anyascii").anyascii
    for word in words(language):
        yield Example(word, anyascii(word), word)


def _to_native(language: str, alphabet: str) -> Iterator[Example]:
    """Yield Latin spellings with the native word, where the way back is exact."""
    cyrtranslit = packages.load("cyrtranslit")
    for word in words(language):
        latin = cyrtranslit.to_latin(word, alphabet)
        if latin != word and cyrtranslit.to_cyrillic(latin, alphabet) == word:
            yield Example(latin, word, word)


def _kana() -> Iterator[Example]:
    """Yield Japanese names in katakana with their Latin letters."""
    anyascii = packages.load("anyascii").anyascii
    for name in catalogue("ja").values():
        if all("\u30a0" <= c <= "\u30ff" for c in name):
            yield Example(name, anyascii(name), name)


def _hiragana() -> Iterator[Example]:
    """Yield katakana with hiragana: the two blocks run in parallel, 0x60 apart."""
    for name in catalogue("ja").values():
        if all("\u30a1" <= c <= "\u30f6" or c == "\u30fc" for c in name):
            shifted = "".join(c if c == "\u30fc" else chr(ord(c) - 0x60) for c in name)
            yield Example(name, shifted, name)


TASKS = (
    *(BaseTask(f"romanize-{code}", partial(_romanized, code)) for code in ROMANIZED),
    *(BaseTask(f"native-{code}", partial(_to_native, code, a)) for code, a in CYRILLIC.items()),
    BaseTask("katakana-latin", _kana),
    BaseTask("katakana-hiragana", _hiragana),
)
