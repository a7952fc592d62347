"""Word lists with lemmas in many languages, from the dictionaries inside simplemma."""

from __future__ import annotations

import random
from functools import lru_cache

from edgeseq_core.corpus import packages

SAMPLE = 24_000  # dictionary entries kept per language
LONGEST = 20  # characters per word


@lru_cache(maxsize=64)
def form_lemma_pairs(language: str) -> tuple[tuple[str, str], ...]:
    """Return sampled (form, lemma) pairs of ``language`` (ISO 639 code), in a fixed order."""
    factories = packages.load("simplemma", "strategies.dictionaries")
    # A factory of our own: its cache, hundreds of MB for large languages, dies with it.
    dictionary = factories.DefaultDictionaryFactory(cache_max_size=1).get_dictionary(language)
    forms = random.Random(language).sample(list(dictionary), min(2 * SAMPLE, len(dictionary)))
    pairs = []
    for form in forms:
        lemma = dictionary[form]
        if 3 <= len(form) <= LONGEST and len(lemma) <= LONGEST and _is_word(form + lemma):
            pairs.append((form, lemma))
    return tuple(pairs[:SAMPLE])


def _is_word(text: str) -> bool:
    """Return whether ``text`` is made of letters and combining marks in lower case.

    ``isalpha`` alone would refuse the vowel signs of Indic scripts.
    """
    return text == text.lower() and all(c.isalpha() or ord(c) > 0x2FF for c in text)


@lru_cache(maxsize=64)
def words(language: str) -> tuple[str, ...]:
    """Return sampled words of ``language``, each once, in a fixed order."""
    return tuple(dict.fromkeys(form for form, _ in form_lemma_pairs(language)))
