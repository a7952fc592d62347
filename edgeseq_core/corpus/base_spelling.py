"""Pretraining tasks about spelling: typing errors, accents, syllables."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from functools import lru_cache, partial

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.examples import BaseTask, Example, shuffled
from edgeseq_core.corpus.words import words

ACCENTED = ("cs", "fr", "hu", "is", "lv", "pt", "ro", "sk", "sv", "tr")
HYPHENATED = ("it", "hu", "nl", "pt", "ru", "sv", "el", "sl", "uk")
NOISY = {
    "latin": ("fr", "it", "pt", "sv", "nl", "tr", "cs"),
    "cyrillic": ("ru", "uk", "bg"),
    "greek": ("el",),
    "caucasian": ("hy", "ka"),
    "semitic": ("ar", "he"),
    "indic": ("hi", "ml"),
}


def single_corrections(dictionary: str) -> list[tuple[str, str]]:
    """The (wrong, right) words of a codespell dictionary that have one correction only.

    >>> single_corrections("abandonned->abandoned\\nabd->and, bad,")
    [('abandonned', 'abandoned')]
    """
    pairs = [line.split("->", 1) for line in dictionary.splitlines() if "->" in line]
    # A comma means several corrections, or a reason not to correct: no single answer.
    return [(wrong, right) for wrong, right in pairs if "," not in right]


def codespell(path: str) -> list[tuple[str, str]]:
    """The single corrections in a dictionary of the installed codespell."""
    return single_corrections(packages.data_file("codespell_lib", "data", path).read_text("utf-8"))


def english_typos(seed: int | str) -> list[Example]:
    """Return a misspelt word with its correction, e.g. ``abandonned`` and ``abandoned``."""
    pairs = [Example(wrong, right, wrong) for wrong, right in codespell("dictionary.txt")]
    return shuffled(pairs, seed)


def _american(to_british: bool) -> Iterator[Example]:
    for british, american in codespell("dictionary_en-GB_to_en-US.txt"):
        if to_british:
            yield Example(american, british, american)
        else:
            yield Example(british, american, british)


def without_accents(text: str) -> str:
    """Return ``text`` without combining marks and without the Turkish dotless i.

    >>> without_accents("příliš žluťoučký kıskanç")
    'prilis zlutoucky kiskanc'
    """
    marks = unicodedata.normalize("NFD", text)
    return "".join(c for c in marks if not unicodedata.combining(c)).replace("ı", "i")


def _accents_restored(language: str) -> Iterator[Example]:
    for word in words(language):
        plain = without_accents(word)
        if plain.isascii():
            yield Example(plain, word, word)


def _accents_removed() -> Iterator[Example]:
    for group in zip(*(words(language)[:4000] for language in ACCENTED), strict=False):
        for word in group:
            yield Example(word, without_accents(word), word)


def _hyphenated(language: str) -> Iterator[Example]:
    dictionary = packages.load("pyphen").Pyphen(lang=language)
    for word in words(language):
        yield Example(word, dictionary.inserted(word), word)


def damaged(word: str, rng: random.Random, alphabet: str) -> str:
    """Return ``word`` with one random slip: a character lost, doubled, swapped or replaced."""
    place = rng.randrange(len(word) - 1)
    head, first, second, tail = word[:place], word[place], word[place + 1], word[place + 2 :]
    kind = rng.randrange(4)
    if kind == 0:
        return head + second + tail
    if kind == 1:
        return head + first + first + second + tail
    if kind == 2:
        return head + second + first + tail
    return head + rng.choice(alphabet) + second + tail


def _denoising(languages: tuple[str, ...]) -> Iterator[Example]:
    for group in zip(*(words(language) for language in languages), strict=False):
        for language, word in zip(languages, group, strict=True):
            rng = random.Random(f"{language}:{word}")
            source = damaged(word, rng, _alphabet(language))
            yield Example(source, word, word)


@lru_cache(maxsize=64)
def _alphabet(language: str) -> str:
    """Return letters of ``language`` as often as they occur in a few words."""
    return "".join(words(language)[:200])


TASKS = (
    BaseTask("typos-english", partial(english_typos, "typos")),
    BaseTask("british-to-american", partial(_american, to_british=False)),
    BaseTask("american-to-british", partial(_american, to_british=True)),
    BaseTask("accents-removed", _accents_removed),
    *(BaseTask(f"accents-{code}", partial(_accents_restored, code)) for code in ACCENTED),
    *(BaseTask(f"hyphens-{code}", partial(_hyphenated, code)) for code in HYPHENATED),
    *(BaseTask(f"denoise-{name}", partial(_denoising, codes)) for name, codes in NOISY.items()),
)
