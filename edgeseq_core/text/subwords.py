"""Subwords: pieces of several characters, merged of two shorter ones by byte-pair encoding.

Every character keeps its own id, so a text can still be written character by character, and one that no
piece covers is written as its bytes.  Encoding is that of Hugging Face ``tokenizers``.

Source: byte-pair encoding of words (Sennrich, Haddow, Birch 2016, section 3.2), with byte fallback.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from edgeseq_core.errors import MissingExtraError
from edgeseq_core.text.vocabulary import FIRST_BYTE, FIRST_CHARACTER, Vocabulary

MAX_PIECE_CHARACTERS = 16
BYTES = {f"<0x{byte:02X}>": FIRST_BYTE + byte for byte in range(256)}  # as `tokenizers` names them

Merge = tuple[int, int]  # places among the pieces of its left and right half


class Subwords(Vocabulary):
    """Characters and the pieces merged of them; immutable, named by its digest.

    >>> v = Subwords("abc ", [(0, 1), (4, 2)])       # ab, then ab + c
    >>> v.pieces
    ('a', 'b', 'c', ' ', 'ab', 'abc')
    >>> v.encode("abcab é"), v.decode(v.encode("abcab é"))
    ([264, 263, 262, 198, 172], 'abcab é')
    """

    def __init__(self, characters: Iterable[str], merges: Iterable[Merge]) -> None:
        super().__init__(characters)
        self.merges = tuple((left, right) for left, right in merges)
        pieces, ids = list(self.pieces), dict(self._ids)
        halves = []
        for left, right in self.merges:
            if not 0 <= min(left, right) <= max(left, right) < len(pieces):
                raise ValueError("a merge joins pieces that come before it")
            halves.append((pieces[left], pieces[right]))
            piece = pieces[left] + pieces[right]
            if piece in BYTES:
                raise ValueError(f"the piece {piece} is how a byte is named")
            if piece not in ids:  # two merges may make the same piece
                ids[piece] = FIRST_CHARACTER + len(pieces)
                pieces.append(piece)
        self.pieces, self._ids = tuple(pieces), ids
        self._tokenizer = _tokenizer(ids, halves)
        self.digest = hashlib.sha256(
            json.dumps(["edgeseq-subwords-1", self.characters, self.merges]).encode()
        ).hexdigest()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def written_with(self, ids: Iterable[int]) -> set[int]:
        given = set(ids)
        letters = {c for at in given if at >= FIRST_CHARACTER for c in self._piece(at)}
        return given | {at for piece, at in self._ids.items() if letters.issuperset(piece)}

    def _piece(self, token: int) -> str:
        at = token - FIRST_CHARACTER  # a task's own characters come after all pieces
        return self.pieces[at] if at < len(self.pieces) else ""


def learn_subwords(texts: Iterable[str], characters: Sequence[str], *, pieces: int) -> Subwords:
    """The characters and, of what the texts have most often, at most so many pieces merged of them.

    A blank belongs to the word after it, and no piece spans two words.

    >>> v = learn_subwords(["low lower lowest"] * 9, "lowerst ", pieces=3)
    >>> v.pieces[8:], v.encode("slow")
    (('lo', 'low', ' low'), [264, 268])
    """
    library = _library()
    tokenizer = _words(library.Tokenizer(library.models.BPE()))
    trainer = library.trainers.BpeTrainer(
        vocab_size=len(characters) + pieces,
        initial_alphabet=list(characters),
        limit_alphabet=len(characters),
        max_token_length=MAX_PIECE_CHARACTERS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    places = {character: at for at, character in enumerate(characters)}
    merges: list[Merge] = []
    for left, right in made:
        if left in places and right in places and left + right not in BYTES:
            merges.append((places[left], places[right]))
            places.setdefault(left + right, len(places))
    return Subwords(characters, merges)


def _tokenizer(ids: dict[str, int], merges: Sequence[tuple[str, str]]) -> Any:
    library = _library()
    model = library.models.BPE(BYTES | ids, list(merges), byte_fallback=True)
    return _words(library.Tokenizer(model))


def _words(tokenizer: Any) -> Any:
    """The tokenizer, which sees one word at a time with the blank before it."""
    tokenizer.pre_tokenizer = _library().pre_tokenizers.Split(" ", "merged_with_next")
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError(
            "tokenizers, which a base with subwords reads text with,",
            'install "edgeseq[subwords]"',
        ) from error
    return tokenizers
