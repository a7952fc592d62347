"""Pretraining tasks that edit real words of many languages: copy, cut, join, change case."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

from edgeseq_core.corpus.examples import BaseTask, Example
from edgeseq_core.corpus.words import words

LANGUAGES = ("fr", "it", "pt", "nl", "cs", "tr", "ru", "el", "hy", "ka", "he", "hi")
CASED = ("fr", "it", "pt", "nl", "cs", "ru", "el", "hy")
EACH = 1500  # words per language


def _one(edit: Callable[[str], str], languages: tuple[str, ...]) -> Iterator[Example]:
    for group in zip(*(words(language)[-EACH:] for language in languages), strict=False):
        for word in group:
            yield Example(word, edit(word), word)


def _phrases(read: str, write: str, count: int) -> Iterator[Example]:
    """Yield phrases of 2 to ``count`` words joined by ``read``, and joined by ``write``."""
    rng = random.Random(read + write)
    for _ in range(12_000):
        chosen = rng.sample(words(rng.choice(CASED)), rng.randint(2, count))
        yield Example(read.join(chosen), write.join(chosen), read.join(chosen))


def _swapped() -> Iterator[Example]:
    for example in _phrases(" ", " ", 3):
        target = " ".join(reversed(example.source.split()))
        yield Example(example.source, target, example.key)


def _initials() -> Iterator[Example]:
    for example in _phrases(" ", " ", 5):
        target = "".join(word[0].upper() for word in example.source.split())
        yield Example(example.source, target, example.key)


def _camel(back: bool) -> Iterator[Example]:
    for example in _phrases("_", " ", 4):
        first, *rest = example.target.split()
        camel = first + "".join(word.capitalize() for word in rest)
        pair = (camel, example.source) if back else (example.source, camel)
        yield Example(*pair, example.key)


def _affixes() -> Iterator[Example]:
    """Yield "word +affix" or "word affix+" with the two joined, affixes cut from words."""
    rng = random.Random("affixes")
    for _ in range(12_000):
        word, other = rng.sample(words(rng.choice(LANGUAGES)), 2)
        cut = rng.randint(1, 3)
        if rng.random() < 0.5:
            yield Example(f"{word} +{other[-cut:]}", word + other[-cut:], word)
        else:
            yield Example(f"{word} {other[:cut]}+", other[:cut] + word, word)


def _replaced_ending() -> Iterator[Example]:
    """Yield "word -end +new" with the word whose ending was exchanged."""
    rng = random.Random("endings")
    for _ in range(12_000):
        word, other = rng.sample(words(rng.choice(LANGUAGES)), 2)
        cut, grown = rng.randint(1, 2), rng.randint(1, 3)
        source = f"{word} -{word[-cut:]} +{other[-grown:]}"
        yield Example(source, word[:-cut] + other[-grown:], word)


TASKS = (
    BaseTask("copy", partial(_one, lambda word: word, LANGUAGES)),
    BaseTask("reverse", partial(_one, lambda word: word[::-1], LANGUAGES)),
    BaseTask("drop-last-two", partial(_one, lambda word: word[:-2], LANGUAGES)),
    BaseTask("drop-first", partial(_one, lambda word: word[1:], LANGUAGES)),
    BaseTask("double-last", partial(_one, lambda word: word + word[-1], LANGUAGES)),
    BaseTask("upper-case", partial(_one, str.upper, CASED)),
    BaseTask("spaced-letters", partial(_one, " ".join, LANGUAGES)),
    BaseTask("swap-words", _swapped),
    BaseTask("initials", _initials),
    BaseTask("snake-to-camel", partial(_camel, back=False)),
    BaseTask("camel-to-snake", partial(_camel, back=True)),
    BaseTask("hyphen-to-blank", partial(_phrases, "-", " ", 4)),
    BaseTask("join-affix", _affixes),
    BaseTask("replace-ending", _replaced_ending),
)
