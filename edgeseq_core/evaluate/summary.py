"""A finished cell in a row of numbers, and the rows of several seeds in one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from edgeseq_core.corpus.streams import Stream
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.measures import (
    RECOVERY_FADE,
    Interval,
    average_accuracy,
    backward_transfer,
    fading,
    forgetting,
    forward_transfer,
    items_below,
    items_to_recover,
    over_seeds,
    worst_drop,
)

KIB, MIB = 1 << 10, 1 << 20
LEAST_LEVEL = 0.1  # of the fading accuracy before a drift


class Measure(NamedTuple):
    """A column: its heading, and its value of a cell; None where it says nothing."""

    heading: str
    of: Callable[[Cell, Stream], float | None]


def _after_phases(of: Callable[[Cell], float]) -> Callable[[Cell, Stream], float | None]:
    """Of methods that were scored after each of several phases."""
    return lambda cell, _: of(cell) if cell.online and len(cell.matrix) > 1 else None


def _after_drift(
    items: Callable[[Sequence[float], int], int | None],
) -> Callable[[Cell, Stream], float | None]:
    """Items after an abrupt drift, of methods that had learnt something before; infinite when never."""

    def of(cell: Cell, stream: Stream) -> float | None:
        if stream.kind != "abrupt" or not cell.online:
            return None
        hits, drift = [int(hit) for hit in cell.hits], len(stream.phases[0].train)
        if fading(hits[:drift], fade=RECOVERY_FADE)[-1] < LEAST_LEVEL:
            return None
        found = items(hits, drift)
        return float("inf") if found is None else found

    return of


def _prequential(cell: Cell) -> float:
    return 100 * fmean(int(hit) for hit in cell.hits)


MEASURES = (
    Measure("average accuracy, %", lambda cell, _: average_accuracy(cell.exact)),
    Measure("backward transfer", _after_phases(lambda c: backward_transfer(c.exact))),
    Measure(
        "forward transfer",
        _after_phases(lambda c: forward_transfer(c.exact, [one.exact for one in c.untrained])),
    ),
    Measure("forgetting", _after_phases(lambda c: forgetting(c.exact))),
    Measure("worst drop", _after_phases(lambda c: worst_drop(c.exact, c.checks))),
    Measure("prequential, %", lambda cell, _: _prequential(cell) if cell.online else None),
    Measure("old regime, %", lambda c, s: None if s.kind == "tasks" else c.exact[-1][0]),
    Measure("new regime, %", lambda c, s: None if s.kind == "tasks" else c.exact[-1][-1]),
    Measure("pairs to recover", _after_drift(items_to_recover)),
    Measure("pairs below 90 %", _after_drift(items_below)),
    Measure("CPU-s / 1,000 pairs", lambda c, _: 1000 * c.learning_cpu_s / c.pairs),
    Measure("peak MiB", lambda c, _: c.peak_resident_bytes / MIB),
    Measure("model KiB", lambda c, _: c.model_bytes / KIB),
    Measure("buffer KiB", lambda c, _: c.buffer_bytes / KIB),
)


class Summary(NamedTuple):
    """A method on a stream, over its seeds."""

    stream: str
    method: str
    seeds: int
    values: Mapping[str, Interval]  # by heading; what says nothing of this stream is not there


def summaries(cells: Iterable[Cell], streams: Mapping[tuple[str, int], Stream]) -> list[Summary]:
    """Cells by stream and method; ``streams`` by name and seed."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.stream, cell.method), []).append(cell)
    return [
        Summary(stream, method, len(group), _values(group, streams))
        for (stream, method), group in groups.items()
    ]


def _values(
    cells: Sequence[Cell], streams: Mapping[tuple[str, int], Stream]
) -> dict[str, Interval]:
    found = {}
    for heading, of in MEASURES:
        values = [of(cell, streams[cell.stream, cell.seed]) for cell in cells]
        known = [value for value in values if value is not None]
        if len(known) == len(cells):
            found[heading] = over_seeds(known)
    return found


def prequential_curve(cell: Cell) -> list[float]:
    """The fading prequential accuracy after each pair, in %."""
    return [100 * score for score in fading(int(hit) for hit in cell.hits)]
