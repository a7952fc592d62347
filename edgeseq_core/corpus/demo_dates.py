"""Demonstration task ``dates``: written dates in eight languages to ISO 8601."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.examples import Example
from edgeseq_core.corpus.held_out import is_held_out

LOCALES = ("en_US", "es", "fr", "de", "it", "pt", "nl", "sv")
ITEMS = 40_000  # examples made per seed
NUMERIC_SHARE = 0.3  # part of the items written as figures, whose day and month may swap
FIRST = datetime.date(1950, 1, 1)
DAYS = (datetime.date(2050, 1, 1) - FIRST).days


@lru_cache(maxsize=2)
def _formats(locales: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (locale, pattern) with a spelled month; patterns in figures are left out."""
    babel: Any = packages.load("babel")
    found = []
    for locale in locales:
        patterns = babel.Locale.parse(locale).date_formats
        for width in ("full", "long", "medium"):
            if "MMM" in patterns[width].pattern:
                found.append((locale, patterns[width].pattern))
    return found


def numeric(date: datetime.date, day_first: bool) -> str:
    """Return ``date`` in figures, in the order of the regime.

    >>> numeric(datetime.date(2021, 3, 4), day_first=False)
    '03/04/2021'
    """
    return date.strftime("%d/%m/%Y" if day_first else "%m/%d/%Y")


def random_date(rng: random.Random) -> datetime.date:
    """A day of the years that are asked about."""
    return FIRST + datetime.timedelta(days=rng.randrange(DAYS))


def dates(
    seed: int, day_first: bool = False, locales: tuple[str, ...] = LOCALES
) -> Iterator[Example]:
    """Yield date texts with their ISO dates; ``day_first`` sets how figures are read.

    The wording is CLDR's, the dates are random between 1950 and 2049.  The same seed gives the
    same spelled dates in both regimes.
    """
    format_date = packages.load("babel", "dates").format_date
    rng = random.Random(seed)
    formats = _formats(locales)
    for _ in range(ITEMS):
        date = random_date(rng)
        locale, pattern = rng.choice(formats)
        if rng.random() < NUMERIC_SHARE:
            source = numeric(date, day_first)
        else:
            source = format_date(date, format=pattern, locale=locale)
        yield Example(source, date.isoformat(), source)


def date_order_flip(before: int, after: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield ``before`` figure dates read month first, then ``after`` read day first.

    Held-out texts are passed over, so a learner may train on every item.

    >>> [source for source, _ in date_order_flip(1, 1, seed=3)]
    ['09/12/1992', '27/05/1973']
    """
    rng = random.Random(seed)
    made = 0
    while made < before + after:
        date = random_date(rng)
        source = numeric(date, day_first=made >= before)
        if not is_held_out(source):
            made += 1
            yield source, date.isoformat()
