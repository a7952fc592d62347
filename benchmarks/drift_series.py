"""Series whose changes are known: losses of the product's learner on drift streams, and those of river.

A recorded series does not depend on a detector: while it is recorded no drift is ever flagged, and up to a
detector's first alarm the learner would have had these very losses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from river.datasets import synth
from river.drift import datasets as annotated
from river.naive_bayes import GaussianNB

from edgeseq_core.corpus.drift_streams import DRIFTS
from edgeseq_core.corpus.streams import Size
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings

NO_DRIFT = 1e-300  # delta of ADWIN at which it flags nothing
HORIZON = 400  # values after an abrupt change in which an alarm is its detection
CHANGE_AT, SYNTH_VALUES = 1_000, 2_000
AGREED = 10  # values: annotators who differ by less mean the same change
STREAMS = ("date-order", "new-language", "slovene-reform", "accents")


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


def recorded(folder: Path, data: Path, pairs: int, seed: int) -> Iterator[Series]:
    """Losses of the offline learner on the product's own drift streams, nats a token, kept in ``folder``."""
    for name in STREAMS:
        stream = DRIFTS[name](data, Size(pairs=pairs, questions=1, seed=seed))
        kept = folder / f"{name}-{pairs}-{seed}.json"
        if not kept.exists():
            kept.write_text(json.dumps(_losses(stream.phases, seed)))
        values = json.loads(kept.read_text())
        ends = list(accumulate(len(phase.train) for phase in stream.phases))
        if stream.kind == "gradual":  # the whole slide is one change
            changes = [Change(ends[0], len(values))]
        else:
            changes = [Change(end, min(end + HORIZON, ends[-1])) for end in ends[:-1]]
        yield Series(name, values, changes)


def _losses(phases: Sequence[Any], seed: int) -> list[float]:
    learner = OfflineLearner(Base.load(), LearningSettings(seed=seed, drift_delta=NO_DRIFT))
    (task,) = {phase.task for phase in phases}
    pairs = [pair for phase in phases for pair in phase.train]
    last = None
    found: list[float] = []
    for progress in learn_pairs(learner, task, pairs):
        if progress.turn is not last:  # the last turn is told twice
            found += [score.loss / score.tokens for score in progress.turn.step.scores]
        last = progress.turn
    if len(found) != len(pairs):
        raise SystemExit(f"{len(found)} losses of {len(pairs)} pairs")
    return found


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
