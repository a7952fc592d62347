"""What a stream is: regimes one after the other, each with pairs to learn and questions to ask."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeseq_core.corpus.examples import MAX_SOURCE, MAX_TARGET, Example
from edgeseq_core.corpus.held_out import is_held_out

Pair = tuple[str, str]
Metric = Literal["exact", "phones", "text"]
Kind = Literal["tasks", "gradual", "abrupt"]


@dataclass(frozen=True)
class Question:
    """A held-out source, and every answer that counts as right; the first is the usual one."""

    source: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """A stretch of a stream under one regime.

    ``task`` is all that a learner is told: over a drift it stays, and nothing marks the change.
    """

    name: str
    task: str
    metric: Metric
    train: Sequence[Pair]  # in the order they come
    questions: Sequence[Question]  # never trained on


@dataclass(frozen=True)
class Stream:
    """Phases in order; ``base_saw`` says what of it the shipped base met, ``left_out`` what is missing."""

    name: str
    kind: Kind
    base_saw: str
    phases: Sequence[Phase]
    left_out: tuple[str, ...] = ()

    @property
    def tasks(self) -> list[str]:
        """The tasks in the order of their first phases."""
        return list(dict.fromkeys(phase.task for phase in self.phases))


@dataclass(frozen=True)
class Size:
    """How much of a source a stream takes: pairs a task, questions a phase, and the seed of its order."""

    pairs: int
    questions: int
    seed: int = 1


def split(
    examples: Iterable[Example], pairs: int, questions: int
) -> tuple[list[Pair], list[Question]]:
    """The first ``pairs`` to learn and the first ``questions``, each source once, by the held-out rule.

    Other targets of a question count as right too, where they follow it at once.

    >>> split([Example("read", "R IY D", "read"), Example("nadar", "n", "nadar")], 5, 5)
    ([('read', 'R IY D')], [Question(source='nadar', answers=('n',))])
    """
    train: dict[str, str] = {}
    asked: dict[str, list[str]] = {}
    for source, target, key in examples:
        if not (0 < len(source) <= MAX_SOURCE and 0 < len(target) <= MAX_TARGET):
            continue
        if source in asked:
            asked[source].append(target)
        elif is_held_out(key):
            if len(asked) < questions:
                asked[source] = [target]
        elif len(train) < pairs:
            train.setdefault(source, target)
        elif len(asked) == questions:
            break
    return list(train.items()), [Question(s, tuple(answers)) for s, answers in asked.items()]


def sampled(pairs: Sequence[Pair], count: int, seed: int | str) -> list[Question]:
    """``count`` of a public test file's pairs as questions (all, where there are fewer)."""
    chosen = random.Random(seed).sample(pairs, min(count, len(pairs)))
    return [Question(source, (target,)) for source, target in chosen]
