"""Pretraining tasks about numbers: in words, by local custom, Roman."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from edgeseq_core.corpus import packages
from edgeseq_core.corpus.examples import BaseTask, Example

IN_WORDS = ("en", "fr", "it", "pt", "ru", "tr", "fi", "hu", "ko", "he", "th", "es", "de")
FORMATS = ("en", "de", "fr", "sv", "pt_BR", "hi", "de_CH", "ar_EG")
CURRENCIES = ("EUR", "USD", "JPY", "GBP", "INR")
ROMAN = {
    "M": 1000, "CM": 900, "D": 500, "CD": 400, "C": 100, "XC": 90, "L": 50, "XL": 40,
    "X": 10, "IX": 9, "V": 5, "IV": 4, "I": 1,
}  # fmt: skip
ITEMS = 12_000  # candidates per task


def _numbers(seed: str) -> Iterator[int]:
    """Yield whole numbers below ten million, small ones as often as large ones."""
    rng = random.Random(seed)
    for _ in range(ITEMS):
        yield rng.randrange(10 ** rng.randint(1, 7))


def _in_words(language: str) -> Iterator[Example]:
    num2words = packages.load("num2words").num2words
    for number in _numbers(language):
        yield Example(str(number), num2words(number, lang=language), str(number))


def _to_figures() -> Iterator[Example]:
    num2words = packages.load("num2words").num2words
    for index, number in enumerate(_numbers("figures")):
        source = num2words(number, lang=IN_WORDS[index % len(IN_WORDS)])
        yield Example(source, str(number), source)


def _by_custom() -> Iterator[Example]:
    """Yield "figure locale" and the figure as written there, e.g. ``1234.5 de``."""
    formats = packages.load("babel", "numbers")
    for index, number in enumerate(_numbers("custom")):
        locale, value = FORMATS[index % len(FORMATS)], number / 100
        source = f"{value} {locale}"
        yield Example(source, formats.format_decimal(value, locale=locale), source)


def _money() -> Iterator[Example]:
    """Yield "amount currency locale" and the amount as written there."""
    formats = packages.load("babel", "numbers")
    for index, number in enumerate(_numbers("money")):
        locale = FORMATS[index % len(FORMATS)]
        currency, value = CURRENCIES[index % len(CURRENCIES)], number / 100
        source = f"{value} {currency} {locale}"
        yield Example(source, formats.format_currency(value, currency, locale=locale), source)


def roman(number: int) -> str:
    """Return ``number`` (1 to 3,999) in Roman figures.

    >>> roman(1994)
    'MCMXCIV'
    """
    result = ""
    for letters, value in ROMAN.items():
        count, number = divmod(number, value)
        result += letters * count
    return result


def _roman(to_roman: bool) -> Iterator[Example]:
    for number in random.Random("roman").sample(range(1, 4000), 3999):
        pair = (str(number), roman(number)) if to_roman else (roman(number), str(number))
        yield Example(*pair, pair[0])


TASKS = (
    *(BaseTask(f"number-words-{code}", partial(_in_words, code)) for code in IN_WORDS),
    BaseTask("number-figures", _to_figures),
    BaseTask("number-format", _by_custom),
    BaseTask("money-format", _money),
    BaseTask("roman", partial(_roman, to_roman=True)),
    BaseTask("roman-back", partial(_roman, to_roman=False)),
)
