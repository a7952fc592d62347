"""Instance-based adaptation: for each question a few steps on the pairs nearest to it, then taken back.

Source: Farajian, Turchi, Negri, Federico 2017 (WMT, W17-4713), the adaptation of ModernMT: the generic model
never changes; the pool of pairs is searched for the source, and the nearer what is found, the larger the
steps.  There, similarity is a sentence-level BLEU over words; here the sources are words and short
phrases, so that it is the share of character trigrams in common.  Pairs cost nothing to learn; every
answer costs the steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from heapq import nlargest

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.methods.memories import Reservoir, row_bytes
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.whole_model import Baseline, Row, rows_of

NEAREST = 8  # pairs that an answer adapts to
RATE = 0.6  # of the other methods' step size; the best of four on 100 questions of two demo tasks
GRAM = 3  # characters
MAX_KNOWN = (
    65_536  # sources whose trigrams are at hand; not counted as stored, for they follow from them
)


@lru_cache(MAX_KNOWN)
def grams(text: str) -> frozenset[str]:
    """Character trigrams of a text with its ends marked.

    >>> sorted(grams("abc"))
    ['\\n\\na', '\\nab', 'abc', 'bc\\n', 'c\\n\\n']
    """
    marked = "\n" * (GRAM - 1) + text + "\n" * (GRAM - 1)
    return frozenset(marked[at : at + GRAM] for at in range(len(marked) - GRAM + 1))


def similarity(one: str, other: str) -> float:
    """The Dice coefficient of two texts' trigrams, 0 to 1.

    >>> similarity("walk", "walk"), similarity("walk", "Haus"), similarity("walk", "walks") > 0.5
    (1.0, 0.0, True)
    """
    mine, its = grams(one), grams(other)
    return 2 * len(mine & its) / (len(mine) + len(its))


def nearest(source: str, rows: Iterable[Row]) -> list[tuple[float, Row]]:
    """The `NEAREST` rows of sources that share a trigram, with their similarity, nearest first."""
    found = nlargest(
        NEAREST, ((similarity(source, row.source), row) for row in rows), key=lambda one: one[0]
    )
    return [one for one in found if one[0] > 0]


class InstanceAdaptation(Baseline):
    """Keeps pairs, learns nothing from them until it is asked; answers from a copy that is then dropped."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        budget = terms.task_bytes * len(terms.tasks)
        self._memory = Reservoir[Row](budget, row_bytes, terms.learning.seed)

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        self._memory.add(rows_of(task, pairs))

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        pool = [row for row in self._memory.all() if row.task == task]
        return [self._answer(task, source, pool) for source in sources]

    def _answer(self, task: str, source: str, pool: Sequence[Row]) -> str:
        found = nearest(source, pool)
        if not found:
            return self.model.answers(task, [source])[0]
        rows = [row for _, row in found]
        with self.model.adapted(rows, steps=self.terms.steps, rate=RATE * found[0][0]):
            return self.model.answers(task, [source])[0]

    def buffer_bytes(self) -> int:
        return self._memory.bytes
