"""Series whose changes are known: what the product's learner sees on drift streams, and river's.

A recorded series does not depend on a detector: while it is recorded no drift is ever flagged, and up to a
detector's first alarm the learner would have had these very losses.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from river.datasets import synth
from river.drift import datasets as annotated
from river.naive_bayes import GaussianNB

from edgeseq_core.corpus.demo_dates import dates
from edgeseq_core.corpus.demo_words import english_inflection, german_plurals
from edgeseq_core.corpus.drift_streams import DRIFTS
from edgeseq_core.corpus.examples import Example
from edgeseq_core.corpus.streams import Pair, Size, split
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs
from edgeseq_core.learn.signals import LOSS, UNIT
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings

NO_DRIFT = 1e-300  # delta of ADWIN at which it flags nothing
HORIZON = 400  # values after an abrupt change in which an alarm is its detection
CHANGE_AT, SYNTH_VALUES = 1_000, 2_000
AGREED = 10  # values: annotators who differ by less mean the same change
STREAMS = ("date-order", "new-language", "slovene-reform", "accents")
STILL: Mapping[str, Callable[[int], Sequence[Example]]] = {
    "english-inflection": english_inflection,
    "german-plurals": german_plurals,
}
LONGER = "longer words"
SCRIPT = "new script"


@dataclass(frozen=True)
class Change:
    """From where on it holds, and until where an alarm is its detection (exclusive)."""

    start: int
    until: int


@dataclass(frozen=True)
class Series:
    """Values in order; ``both_ways`` where a fall is a change too."""

    name: str
    values: Sequence[float]
    changes: Sequence[Change]
    both_ways: bool = False


def recorded(
    folder: Path, data: Path, pairs: int, seed: int, *, streams: Sequence[str] = STREAMS
) -> Iterator[dict[str, Series]]:
    """What the offline learner sees on the product's own streams, by signal; kept in ``folder``."""
    for name in streams:
        phases, gradual = _phases(name, data, pairs, seed)
        kept = folder / f"signals-{name.replace(' ', '-')}-{pairs}-{seed}.json"
        if not kept.exists():
            kept.write_text(
                json.dumps(_signals([pair for phase in phases for pair in phase], seed))
            )
        ends = list(accumulate(map(len, phases)))
        if gradual:  # the whole slide is one change
            changes = [Change(ends[0], ends[-1])]
        else:
            changes = [Change(end, min(end + HORIZON, ends[-1])) for end in ends[:-1]]
        found = json.loads(kept.read_text())
        yield {signal: Series(name, values, changes) for signal, values in found.items()}


def _phases(name: str, data: Path, pairs: int, seed: int) -> tuple[list[list[Pair]], bool]:
    """Pairs by regime, and whether one slides into the other."""
    if name in DRIFTS:
        stream = DRIFTS[name](data, Size(pairs=pairs, questions=1, seed=seed))
        return [list(phase.train) for phase in stream.phases], stream.kind == "gradual"
    if name in STILL:
        return [[(e.source, e.target) for e in STILL[name](seed)[:pairs]]], False
    if name == SCRIPT:
        return [
            split(dates(seed, locales=(of,)), pairs // 2, 1)[0] for of in ("en_US", "ko")
        ], False
    # The rule stays, the words change: the shorter half of them, then the longer half.
    still, rng = [(e.source, e.target) for e in german_plurals(seed)[:pairs]], random.Random(seed)
    still.sort(key=lambda pair: (len(pair[0]), pair))
    halves = [still[: pairs // 2], still[pairs // 2 :]]
    for half in halves:
        rng.shuffle(half)
    return halves, False


def _signals(pairs: Sequence[Pair], seed: int) -> dict[str, list[float]]:
    """Signal -> its value for each pair; NaN before a task has a place to be distant from."""
    learner = OfflineLearner(Base.load(), LearningSettings(seed=seed, drift_delta=NO_DRIFT))
    for progress in learn_pairs(learner, "task", pairs):
        task = progress.turn.learner
    kept, values = task.signals.to_state()
    ends = list(accumulate(kept["counts"].values()))
    found = {LOSS: task.drift.values}
    for signal, end in zip(kept["counts"], ends, strict=True):
        found[signal] = (UNIT * values[end - kept["counts"][signal] : end]).tolist()
    return {signal: [math.nan] * (len(pairs) - len(of)) + of for signal, of in found.items()}


CONCEPTS: Mapping[str, Any] = {
    "SEA": partial(synth.SEA, variant=0, noise=0.1),
    "STAGGER": partial(synth.STAGGER, classification_function=0),
    "Agrawal": partial(synth.Agrawal, classification_function=0),
}
LATER: Mapping[str, Any] = {
    "SEA": partial(synth.SEA, variant=3, noise=0.1),
    "STAGGER": partial(synth.STAGGER, classification_function=2),
    "Agrawal": partial(synth.Agrawal, classification_function=3),
}


def synthetic(seed: int) -> Iterator[Series]:
    """Errors (0 or 1) of naive Bayes, which learns on, on river's generators with a change of concept."""
    for name, concept in CONCEPTS.items():
        model, values = GaussianNB(), list[float]()
        streams = (concept(seed=seed), LATER[name](seed=seed + 1))
        for stream, count in zip(streams, (CHANGE_AT, SYNTH_VALUES - CHANGE_AT), strict=True):
            for x, y in stream.take(count):
                values.append(float(model.predict_one(x) != y))
                model.learn_one(x, y)
        yield Series(f"river {name}", values, [Change(CHANGE_AT, CHANGE_AT + HORIZON)])


# Where the file has the length that the annotators saw, and enough values for a window.
ANNOTATED: Mapping[Any, str] = {
    annotated.RunLog: "Pace",
    annotated.Occupancy: "V2",
    annotated.AirlinePassengers: "Total Passengers",
}


def of_annotators() -> Iterator[Series]:
    """river's annotated series, scaled; a change is where more than half of the annotators saw one."""
    for dataset, variable in ANNOTATED.items():
        made = dataset()
        found = [float(y[variable] if isinstance(y, dict) else y) for _, y in made]
        mean, spread = fmean(found), pstdev(found)
        points = [*agreed(made.annotations), len(found)]
        changes = [Change(a, b) for a, b in pairwise(points)]
        values = [(value - mean) / spread for value in found]
        yield Series(f"river {dataset.__name__}", values, changes, both_ways=True)


def agreed(annotations: Mapping[str, Sequence[int]]) -> list[int]:
    """Points that most annotators name, give or take a few values; of each the first.

    >>> agreed({"a": [10, 50], "b": [12], "c": [9, 80]})
    [9]
    """
    named = sorted((point, who) for who, points in annotations.items() for point in points)
    found: list[int] = []
    for point, _ in named:
        who = {w for p, w in named if point <= p < point + AGREED}
        if 2 * len(who) > len(annotations) and (not found or point - found[-1] >= AGREED):
            found.append(point)
    return found
