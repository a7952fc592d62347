"""What an engine bench found: a row an engine and cell, as CSV and as one picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from edgeseq_core.model.curves import require_matplotlib


class Cell(NamedTuple):
    """What is measured: 16 tokens to 16 tokens, answers of a base of a preset."""

    preset: str
    batch: int
    threads: int = 1
    instructions: str | None = None  # None: the best of everyone

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        forced = f", {self.instructions} forced" if self.instructions else ""
        return f"d={self.preset}, batch {self.batch}{threads}{forced}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """An engine in a cell; times are medians over rounds, ratios medians of the rounds' ratios."""

    cell: str
    engine: str
    calibrated: bool  # one task of rank 8 at decoder and top layer
    ms: float  # CPU time of a batch on one thread, wall time on more
    native_is_faster: float  # times; the native engine with or without calibration, as this one
    answers_like_fp32: str  # of so many sources, by the shipped base; the whole of 16 tokens
    symbols_like_fp32: float | None  # share before the first that differs
    floor_ms: float
    times_the_floor: float
    step_bytes: int  # weights that a decoder's step reads
    step_multiply_adds: int
    peak_bytes_a_second: float
    peak_multiply_adds_a_second: float
    cores_of_others: float  # in use by other processes meanwhile
    version: str
    instructions: str  # of the native engine, and of the peak
    cpu: str


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """All columns of all rows."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def draw(rows: Sequence[Row], file: Path) -> None:
    """Times of every engine, cell by cell, above the floor; a PNG.  Raises MissingExtraError."""
    require_matplotlib()
    from matplotlib.figure import Figure

    cells = list(dict.fromkeys(row.cell for row in rows))
    looks = list(dict.fromkeys((row.engine, row.calibrated) for row in rows))
    figure = Figure(figsize=(3 + 1.2 * len(cells), 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(looks)
    for at, (engine, calibrated) in enumerate(looks):
        own = {
            row.cell: row for row in rows if (row.engine, row.calibrated) == (engine, calibrated)
        }
        places = [place + at * width for place, cell in enumerate(cells) if cell in own]
        times = [own[cell].ms for cell in cells if cell in own]
        name = f"{engine}, calibrated" if calibrated else engine
        axes.bar(places, times, width, label=name, color=f"C{at}")
    floors = {row.cell: row.floor_ms for row in rows}
    for place, cell in enumerate(cells):
        ends = place - width / 2, place + 0.85 - width / 2
        axes.plot(ends, [floors[cell]] * 2, color="black", linewidth=1, label="_")
    axes.set_yscale("log")
    axes.set_ylabel("ms a batch; black: the floor of its products")
    axes.set_xticks([n + 0.4 for n in range(len(cells))], [c.replace(", ", "\n") for c in cells])
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(file, dpi=110, metadata={"Software": None})
