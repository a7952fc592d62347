"""Pretraining tasks: names of languages, regions, countries and currencies in other scripts."""

from __future__ import annotations

import gettext
from collections.abc import Iterator
from functools import partial

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.examples import BaseTask, Example, shuffled

# English -> these, then pairs of close languages through the common English name.
FROM_ENGLISH = ("uk", "ru", "sr", "be", "hi", "ta", "mr", "ka", "ja", "ko", "th", "zh_CN")
CLOSE = (("uk", "be"), ("ru", "uk"), ("hi", "mr"), ("sv", "da"), ("pt", "it"), ("cs", "sk"))
DOMAINS = ("iso639-3", "iso3166-2", "iso3166-1", "iso4217")


def catalogue(language: str) -> dict[str, str]:
    """Return English name -> name in ``language``, from the package's message files."""
    names: dict[str, str] = {}
    for domain in DOMAINS:
        path = packages.data_file("pycountry", "locales", language, "LC_MESSAGES", f"{domain}.mo")
        if path.exists():
            with path.open("rb") as stream:
                catalogue: dict[str, str] = vars(gettext.GNUTranslations(stream))["_catalog"]
            names.update((k, v) for k, v in catalogue.items() if isinstance(k, str) and k)
    return {english: name for english, name in names.items() if english != name}


def _from_english(language: str) -> Iterator[Example]:
    pairs = [Example(k, v, k) for k, v in sorted(catalogue(language).items())]
    yield from shuffled(pairs, language)


def _between(source: str, target: str) -> Iterator[Example]:
    left, right = catalogue(source), catalogue(target)
    pairs = [Example(left[k], right[k], left[k]) for k in sorted(left.keys() & right.keys())]
    yield from shuffled(pairs, source + target)


TASKS = (
    *(BaseTask(f"names-en-{code}", partial(_from_english, code)) for code in FROM_ENGLISH),
    *(BaseTask(f"names-{a}-{b}", partial(_between, a, b)) for a, b in CLOSE),
)
