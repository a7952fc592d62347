"""The one rule that decides which items no model may ever train on."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from functools import lru_cache

HELD_OUT_ONE_IN = 10


@lru_cache(maxsize=1)
def _removed() -> dict[int, None]:
    """Return the translation table that deletes every punctuation and symbol character."""
    return {
        code: None
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code))[0] in "PS"
    }


def fold(text: str) -> str:
    """Return ``text`` in lower case, without punctuation or symbols, blanks collapsed.

    >>> fold("  Don't STOP, 3.50€! ")
    'dont stop 350'
    """
    return " ".join(text.lower().translate(_removed()).split())


@lru_cache(maxsize=4096)
def md5(text: str) -> bytes:
    """Return the MD5 of the folded ``text`` (16 bytes); cached, as several rules ask in turn.

    >>> md5("Haus") == md5("haus!")
    True
    """
    return hashlib.md5(fold(text).encode(), usedforsecurity=False).digest()


def digest(text: str) -> int:
    """Return the MD5 of the folded ``text`` as a whole number (128 bits)."""
    return int.from_bytes(md5(text), "big")


def is_held_out(source: str) -> bool:
    """Return whether ``source`` belongs to the tenth of all items kept for testing.

    Inflection-like tasks pass the lemma, so that no form of a held-out word is ever trained on.

    >>> is_held_out("nadar"), is_held_out("Nadar!"), is_held_out("hablar")
    (True, True, False)
    """
    return digest(source) % HELD_OUT_ONE_IN == 0
