"""What a stream bench found: one standalone HTML page, and its numbers as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from edgeseq_core.corpus.streams import Stream
from edgeseq_core.evaluate import pictures
from edgeseq_core.evaluate.bench_folder import BenchFolder
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.measures import Interval
from edgeseq_core.evaluate.quality import DETAIL
from edgeseq_core.evaluate.summary import MEASURES, Summary, prequential_curve, summaries

CURVE_EVERY = 50  # pairs between the points of the curves' table

TERMS = """Every method starts from the same base and gets the same pairs in the same order, in batches. One
that trains a whole model takes three optimizer steps a batch, EdgeSeq as many as its service does (nine,
on a calibration); CPU-seconds stand in the tables. Beside the base every method may keep the same bytes a
task, for what it likes: EdgeSeq a calibration and a reservoir, the others pairs (and logits). Two are
references that break these terms: <i>separate</i> holds a whole model a task, <i>joint</i> all pairs; EWC
holds two copies of the model in fp32. GDumb and joint learn when the stream has ended. Whole models are told
the task too, by task tokens and a task vector of their own, and are asked in fp32 where EdgeSeq answers from
the int8 snapshot that its gate let through. CPU-seconds are those of learning: <i>instances</i> spends its
own on answers. No setting was tuned on these streams but EdgeSeq's number of steps, and what it does after a
drift. A ± is Student's 95 % interval over seeds; where there is none, there was one seed."""

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 0 0 1.5rem } td, th { padding: .2rem .5rem; text-align: right }
td { white-space: nowrap } th { font-weight: 600; vertical-align: bottom }
tr > :first-child { text-align: left }
tr + tr td { border-top: 1px solid #ddd } .wide { overflow-x: auto } .small { display: inline-block;
margin-right: 2rem; font-size: 13px } svg { max-width: 100%; height: auto }"""


def write_report(folder: BenchFolder) -> list[Path]:
    """Write ``report.html`` and three tables into the bench's folder; returns their paths.

    Raises ConfigError when nothing has been run there, MissingExtraError without matplotlib.
    """
    cells = folder.cells()
    streams = {
        (cell.stream, cell.seed): folder.kept_stream(cell.stream, cell.seed) for cell in cells
    }
    rows = summaries(cells, streams)
    files = [folder.folder / name for name in ("measures.csv", "matrix.csv", "prequential.csv")]
    _write_csv(files[0], _measures(rows))
    _write_csv(files[1], _matrices(cells, streams))
    _write_csv(files[2], _curves(cells))
    page = folder.folder / "report.html"
    page.write_text(_page(rows, cells, streams), "utf-8")
    return [page, *files]


def _write_csv(file: Path, lines: Iterable[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(lines)


def _measures(rows: Sequence[Summary]) -> Iterator[list[object]]:
    headings = [measure.heading for measure in MEASURES]
    yield ["stream", "method", "seeds", *(x for h in headings for x in (h, f"{h} ±"))]
    for row in rows:
        values = [row.values.get(heading, Interval(math.nan, math.nan)) for heading in headings]
        yield [*row[:3], *("" if math.isnan(x) else round(x, 3) for v in values for x in v)]


def _matrices(
    cells: Sequence[Cell], streams: dict[tuple[str, int], Stream]
) -> Iterator[list[object]]:
    yield ["stream", "method", "seed", "after", "asked", "exact %", "detail", "detail is"]
    for cell in cells:
        phases = streams[cell.stream, cell.seed].phases
        after = [phase.name for phase in phases][-len(cell.matrix) :]
        for name, scores in [("nothing", cell.untrained), *zip(after, cell.matrix, strict=True)]:
            for phase, one in zip(phases, scores, strict=True):
                where = [cell.stream, cell.method, cell.seed, name, phase.name]
                yield [*where, one.exact, one.detail, DETAIL[phase.metric]]


def _curves(cells: Sequence[Cell]) -> Iterator[list[object]]:
    yield ["stream", "method", "seed", "pairs", "prequential accuracy, fading, %"]
    for cell in cells:
        for at, score in enumerate(prequential_curve(cell), start=1):
            if at % CURVE_EVERY == 0:
                yield [cell.stream, cell.method, cell.seed, at, round(score, 2)]


# --- the page --------------------------------------------------------------------------------------


def _page(
    rows: Sequence[Summary], cells: Sequence[Cell], streams: dict[tuple[str, int], Stream]
) -> str:
    shown: dict[str, tuple[int, Stream]] = {}
    for (name, seed), stream in streams.items():
        shown.setdefault(name, (seed, stream))  # the pictures' seed: the first
    parts = []
    for name, (seed, stream) in shown.items():
        own = [cell for cell in cells if cell.stream == name and cell.seed == seed]
        parts.append(_section(stream, [row for row in rows if row.stream == name], own))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>EdgeSeq on streams</title>'
        f"<style>{STYLE}</style></head><body><h1>EdgeSeq on streams</h1><p>{TERMS}</p>"
        + "".join(parts)
        + "</body></html>\n"
    )


def _section(stream: Stream, rows: Sequence[Summary], cells: Sequence[Cell]) -> str:
    online = [cell for cell in cells if cell.online]
    pairs = sum(len(phase.train) for phase in stream.phases)
    asked = sum(len(phase.questions) for phase in stream.phases)
    left_out = "".join(f"<p>Left out: {escape(said)}.</p>" for said in stream.left_out)
    drawn = [pictures.cost_and_quality(rows)]
    if online:
        drawn += [pictures.average(online, stream), pictures.prequential(online, stream)]
    return (
        f"<h2>{escape(stream.name)}</h2><p>{stream.kind.capitalize()}: {pairs:,} pairs in "
        f"{len(stream.phases)} phases, {asked:,} questions. What the shipped base saw of it: "
        f"{escape(stream.base_saw)}.</p>{left_out}{_summary_table(rows)}"
        + "".join(drawn)
        + "<h3>Accuracy after each phase (rows), by what is asked (columns)</h3>"
        + "".join(_matrix_table(cell, stream) for cell in cells)
    )


def _summary_table(rows: Sequence[Summary]) -> str:
    headings = [m.heading for m in MEASURES if any(m.heading in row.values for row in rows)]
    body = []
    for row in rows:
        values = [row.values.get(heading) for heading in headings]
        body.append([row.method, str(row.seeds), *("" if v is None else str(v) for v in values)])
    return f'<div class="wide">{_table(["method", "seeds", *headings], body)}</div>'


def _matrix_table(cell: Cell, stream: Stream) -> str:
    names = [phase.name for phase in stream.phases]
    body = [["nothing", *(f"{one.exact:.0f}" for one in cell.untrained)]]
    for name, row in zip(names[-len(cell.exact) :], cell.exact, strict=True):
        body.append([name, *(f"{score:.0f}" for score in row)])
    title = f"{cell.method}, seed {cell.seed}"
    return f'<div class="small"><b>{escape(title)}</b>{_table(["after", *names], body)}</div>'


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(headings, 'th')}{''.join(line(row, 'td') for row in body)}</table>"
