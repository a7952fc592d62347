"""Signals of a task side by side: false alarms and delay on streams whose changes are known.

    python benchmarks/signals.py FOLDER --data DATA [--pairs 1600] [--seeds 2]

Every series is recorded once, on the product's own learner (kept in FOLDER, so that a run that was killed
goes on), and read by the detector that the product has for its signal.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectors import PRODUCT, Tally, alarms
from drift_series import HORIZON, LONGER, SCRIPT, STILL, STREAMS, Series, recorded
from report import publish

from edgeseq_core.learn.drift import DriftMonitor
from edgeseq_core.learn.signals import LOSS, WATCHED

WAYS = {LOSS: "rise", **WATCHED}
ALL = "all"
MANNER = {
    "date-order": "answers change at once",
    "new-language": "input and answers change at once",
    "slovene-reform": "the alphabet changes at once",
    "accents": "answers slide",
    SCRIPT: "input and answers change at once",
    LONGER: "the input changes at once, the rule does not",
}


def row(series: str, signal: str, tallies: list[Tally]) -> dict[str, Any]:
    """A line of the table: some streams by one signal."""
    told = sum(tallies, Tally()).row("", "")
    kept = ("false alarms per 1,000", "found", "delay, median", "longest", "CPU, µs a value")
    change = MANNER.get(series, "" if series == ALL else "nothing changes")
    return {"stream": series, "what changes": change, "signal": signal} | {k: told[k] for k in kept}


def tallied(series: Series, signal: str) -> Tally:
    """What the product's detector of a signal says on a series."""
    tally, began = Tally(), time.process_time()
    detector = partial(DriftMonitor, delta=PRODUCT, way=WAYS[signal])
    tally.add(series, alarms(detector, series))
    tally.seconds = time.process_time() - began
    return tally


def notes(args: argparse.Namespace) -> str:
    """What the rows are."""
    return (
        f"{args.pairs:,} pairs a stream, {args.seeds} seeds; the offline learner, to which no drift was "
        f"told. Each signal by ADWIN, delta {PRODUCT:g}: lengths both ways, the confidence for a fall, "
        f"the others for a rise. An alarm within {HORIZON} pairs of a change is its detection (of the "
        "accents: after they begin to slide), the first counts with its delay; all others are false, those "
        "less than 100 pairs apart are one. New script: dates in English, then in Korean. Longer words: "
        "German plurals, the shorter half of the nouns and then the longer half. "
        f"{ALL}: over all of the streams."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="as of edgeseq bench fetch")
    parser.add_argument("--pairs", type=int, default=1_600)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    streams = (*STREAMS, SCRIPT, LONGER, *STILL)
    found: dict[tuple[str, str], list[Tally]] = {}
    for seed in range(1, args.seeds + 1):
        made = recorded(args.folder, args.data, args.pairs, seed, streams=streams)
        for stream, signals in zip(streams, made, strict=True):
            for signal in WAYS:
                tally = tallied(signals[signal], signal)
                found.setdefault((stream, signal), []).append(tally)
                found.setdefault((ALL, signal), []).append(tally)
    rows = [row(s, signal, found[s, signal]) for s in (*streams, ALL) for signal in WAYS]
    publish(
        "signals",
        f"python benchmarks/signals.py FOLDER --data DATA --pairs {args.pairs} --seeds {args.seeds}",
        rows,
        notes(args),
    )


if __name__ == "__main__":
    main()
