"""Detectors of drift side by side: false alarms and delay on series whose changes are known.

    python benchmarks/detectors.py FOLDER --data DATA [--pairs 1600] [--seeds 3]

The product's own losses are recorded once on four of its drift streams (kept in FOLDER, so that a run that
was killed goes on), then every detector reads the same series; so it does errors on river's generators, and
series that people annotated.  Of losses and errors only a rise is a drift, as in the product.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, Protocol

import torch
from drift_series import HORIZON, Series, of_annotators, recorded, synthetic
from report import publish
from river.drift import KSWIN, PageHinkley

from edgeseq_core.learn.drift import DriftMonitor
from edgeseq_core.learn.signals import LOSS
from edgeseq_core.settings import LearningSettings

SYNTHETIC_SEEDS = 10
ONE_ALARM = 100  # values: false alarms closer than that are one, as the product takes them


class Detector(Protocol):
    """Takes values one by one."""

    def update(self, value: float) -> object:
        """Whether the mean has risen (true in a boolean context)."""


class RisePageHinkley:
    """river's Page-Hinkley test of a rise."""

    def __init__(self, threshold: float) -> None:
        self._test = PageHinkley(threshold=threshold, mode="up")  # type: ignore[no-untyped-call]

    def update(self, value: float) -> bool:
        self._test.update(value)  # type: ignore[no-untyped-call]
        return bool(self._test.drift_detected)


class RiseKswin:
    """river's KSWIN, whose test sees any change: told apart by the means that it compares."""

    def __init__(self, alpha: float) -> None:
        self._test = KSWIN(alpha=alpha, seed=1)  # type: ignore[no-untyped-call]
        self._window: deque[float] = deque(maxlen=self._test.window_size)

    def update(self, value: float) -> bool:
        self._test.update(value)  # type: ignore[no-untyped-call]
        self._window.append(value)
        if not self._test.drift_detected:
            return False
        values, recent = list(self._window), self._test.stat_size
        return fmean(values[-recent:]) > fmean(values[:-recent])


PRODUCT = LearningSettings().drift_delta
DELTAS = (0.2, 0.02, 0.002, 0.0002)
DETECTORS: Mapping[str, Callable[[], Detector]] = {
    **{
        f"ADWIN, delta {delta:g}" + (" (the product)" if delta == PRODUCT else ""): partial(
            DriftMonitor, delta=delta
        )
        for delta in DELTAS
    },
    **{
        f"Page-Hinkley, threshold {threshold}": partial(RisePageHinkley, threshold)
        for threshold in (5, 10, 20, 50)
    },
    **{f"KSWIN, alpha {alpha:g}": partial(RiseKswin, alpha) for alpha in (5e-3, 1e-4, 1e-6)},
}


@dataclass
class Tally:
    """What a detector said on some series."""

    values: int = 0  # outside the time in which an alarm is a detection
    false: int = 0
    changes: int = 0
    seconds: float = 0.0
    read: int = 0  # values in all
    delays: list[int] = field(default_factory=list)

    def add(self, series: Series, alarms: Sequence[int]) -> None:
        outside = set(alarms)
        for change in series.changes:
            found = [at - change.start + 1 for at in alarms if change.start <= at < change.until]
            self.delays += found[:1]
            outside -= set(range(change.start, change.until))
        self.changes += len(series.changes)
        self.values += len(series.values) - sum(c.until - c.start for c in series.changes)
        apart = zip([-ONE_ALARM, *sorted(outside)], sorted(outside), strict=False)
        self.false += sum(at - before >= ONE_ALARM for before, at in apart)
        self.read += len(series.values)

    def __add__(self, other: Tally) -> Tally:
        """Both together."""
        added = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Tally(**added)

    def row(self, where: str, detector: str) -> dict[str, Any]:
        delays = sorted(self.delays)
        return {
            "series": where,
            "detector": detector,
            "false alarms per 1,000": 1_000 * self.false / self.values if self.values else "",
            "found": f"{len(delays)} of {self.changes}",
            "delay, median": int(median(delays)) if delays else "",
            "longest": delays[-1] if delays else "",
            "CPU, µs a value": 1e6 * self.seconds / self.read,
        }


def alarms(detector: Callable[[], Detector], series: Series) -> list[int]:
    """Places at which it spoke."""
    ways: Iterable[int] = (1, -1) if series.both_ways else (1,)
    found: set[int] = set()
    for way in ways:
        made = detector()
        told = ((at, value) for at, value in enumerate(series.values) if not math.isnan(value))
        found |= {at for at, value in told if made.update(way * value)}
    return sorted(found)


def groups(args: argparse.Namespace) -> Iterator[tuple[str, list[Series]]]:
    """Series by what a row of the table is about."""
    own = [
        s[LOSS]
        for seed in range(1, args.seeds + 1)
        for s in recorded(args.folder, args.data, args.pairs, seed)
    ]
    for name in dict.fromkeys(series.name for series in own):
        yield name, [series for series in own if series.name == name]
    made = [s for seed in range(1, SYNTHETIC_SEEDS + 1) for s in synthetic(seed)]
    yield "river's generators", made
    yield "river's annotated series", list(of_annotators())


def notes(args: argparse.Namespace) -> str:
    """What the rows are."""
    return (
        f"Streams: {args.pairs:,} pairs each, {args.seeds} seeds; losses (nats a token) of the offline "
        f"learner, to which no drift was told. An alarm within {HORIZON} values of an abrupt change is its "
        "detection, and so is one after the accents begin to slide (over 60 % of the stream); the first "
        "counts with its delay. All alarms elsewhere are false, also while the task is new; those less than "
        f"{ONE_ALARM} values apart are one. Generators: errors of naive Bayes on SEA, STAGGER and Agrawal, "
        f"{SYNTHETIC_SEEDS} seeds, another concept after 1,000 values. Annotated: RunLog, Occupancy (V2) and "
        "AirlinePassengers, scaled to mean 0 and deviation 1; a change is where more than half of the "
        "annotators saw one, a rise or a fall. Apple, Bitcoin and Brent are left out because their files are "
        "longer than what was annotated, UKCoalEmploy because it has 105 values. ADWIN is the product's "
        "monitor, which looks every 8 pairs; all else is river's default."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="as of edgeseq bench fetch")
    parser.add_argument("--pairs", type=int, default=1_600)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for where, of_group in groups(args):
        for name, detector in DETECTORS.items():
            tally = Tally()
            for series in of_group:
                began = time.process_time()
                tally.add(series, alarms(detector, series))
                tally.seconds += time.process_time() - began
            rows.append(tally.row(where, name))
    publish(
        "detectors",
        f"python benchmarks/detectors.py FOLDER --data DATA --pairs {args.pairs} --seeds {args.seeds}",
        rows,
        notes(args),
    )


if __name__ == "__main__":
    main()
