"""The table of a stream bench that has run: methods side by side on the same streams.

    edgeseq bench fetch --data DATA
    edgeseq bench learning --out FOLDER --data DATA [--stream NAME] [--method NAME] [--pairs N] [--seeds N]
    python benchmarks/learning.py FOLDER --name NAME --ran 'edgeseq bench learning ...' [--note TEXT]

Accuracy is exact match on held-out questions; every pair was answered before it was learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean

from report import RESULTS, publish

from edgeseq_core.corpus.streams import Stream
from edgeseq_core.evaluate.bench_folder import BenchFolder
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.pictures import cost_and_quality
from edgeseq_core.evaluate.summary import MEASURES, summaries

EXPLAINED = """Every method starts from the shipped base and gets the same pairs in the same order. One that
trains a whole model takes three optimizer steps a batch, EdgeSeq as many as its service does while nothing
waits (nine, on a calibration); CPU-seconds are shown. Beside the base each may keep 192 KiB a task
(separate: a model a task; joint: all pairs; EWC: two fp32 copies). GDumb and joint learn when the stream has
ended. Whole models are told the task by tokens and a vector of their own, answer in fp32, and count as int8.
No setting was tuned for a method here, but the step size of instances, on two demo tasks, and EdgeSeq's
number of steps, on seed 1 of the stream of tasks (three, seven and eleven were tried: 53.5, 56.6, 59.0 %)."""


# Where one seed never gets there is no mean.
SEED_BY_SEED = ("pairs to recover", "pairs below 90 %")


def by_phase(cells: Sequence[Cell]) -> str:
    """Accuracy on each phase's questions at the end, mean of the seeds."""
    ends = [cell.exact[-1] for cell in cells]
    return " / ".join(f"{fmean(scores):.0f}" for scores in zip(*ends, strict=True))


def seed_by_seed(
    of: Callable[[Cell, Stream], float | None], cells: Sequence[Cell], streams: Sequence[Stream]
) -> str:
    """A measure's value for each seed."""
    values = [of(cell, stream) for cell, stream in zip(cells, streams, strict=True)]
    return " / ".join("" if v is None else f"{v:.0f}" if isfinite(v) else "never" for v in values)


def described(name: str, stream: Stream) -> str:
    """What a stream was, and what the base saw of it."""
    phases = ", ".join(f"{p.name} ({len(p.train):,} pairs)" for p in stream.phases)
    missing = "".join(f" Left out: {said}." for said in stream.left_out)
    return f"{name}: {phases}. The base saw: {stream.base_saw}.{missing}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--ran", required=True)
    parser.add_argument("--note", default="", help="what a reader of this run must know first")
    args = parser.parse_args()
    folder = BenchFolder(args.folder)
    cells = folder.cells()
    streams = {(c.stream, c.seed): folder.kept_stream(c.stream, c.seed) for c in cells}
    found = summaries(cells, streams)
    headings = [m.heading for m in MEASURES if any(m.heading in s.values for s in found)]
    rows = []
    for summary in found:
        own = [c for c in cells if (c.stream, c.method) == (summary.stream, summary.method)]
        learnt = [streams[c.stream, c.seed] for c in own]
        each = {
            m.heading: seed_by_seed(m.of, own, learnt)
            for m in MEASURES
            if m.heading in SEED_BY_SEED and m.heading in summary.values
        }
        rows.append(
            {
                "stream": summary.stream,
                "method": summary.method,
                "seeds": " ".join(str(cell.seed) for cell in own),
                "at the end, by phase": by_phase(own),
                **({h: str(summary.values.get(h, "")) for h in headings} | each),
            }
        )
    of_streams = {name: described(name, stream) for (name, _), stream in streams.items()}
    publish(
        args.name,
        args.ran,
        rows,
        "\n\n".join(filter(None, [args.note, EXPLAINED, *of_streams.values()])),
    )
    if tasks := [summary for summary in found if summary.stream == "tasks"]:
        (RESULTS / f"{args.name}.svg").write_text(cost_and_quality(tasks), "utf-8")


if __name__ == "__main__":
    main()
