"""Well-known programs beside EdgeSeq, asked the same held-out questions of the eight tasks.

    edgeseq bench learning --out FOLDER --data DATA --stream tasks --method edgeseq --pairs 1000
    python benchmarks/peers.py FOLDER

The folder gives the questions, and how EdgeSeq answered them after its pairs.  No peer is needed: one that is
not installed is left out, with how to get it.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from peer_programs import PEERS, MissingError, Peer
from report import publish

from edgeseq_core import __version__
from edgeseq_core.corpus.streams import Phase, Stream
from edgeseq_core.errors import ConfigError
from edgeseq_core.evaluate.bench_folder import TASK_STREAM, BenchFolder
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.measures import over_seeds
from edgeseq_core.evaluate.quality import DETAIL, Quality, quality

Row = dict[str, str]


class Answered(NamedTuple):
    """What came of a phase's questions: quality in %, share that got an answer, CPU-ms a question."""

    quality: Quality
    answered: float
    cpu_ms: float


def cpu_s() -> float:
    """CPU-seconds of this process and of the commands that it ran."""
    ours, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime


def asked(peer: Peer, phase: Phase) -> Answered:
    """Ask a peer; what it takes for one question alone (a command's start) is not counted."""
    ask, sources = peer.start(phase), [question.source for question in phase.questions]
    ask(sources[:1])  # what is loaded late
    began = cpu_s()
    ask(sources[:1])
    one_alone = cpu_s() - began
    began = cpu_s()
    answers = ask(sources)
    took = cpu_s() - began - one_alone
    if len(answers) != len(sources):
        raise RuntimeError(f"{peer.name}: {len(answers)} answers to {len(sources)} questions")
    return Answered(
        quality(phase.metric, answers, phase.questions),
        100 * fmean(map(bool, answers)),
        1000 * took / (len(sources) - 1),
    )


def edgeseq(cell: Cell, stream: Stream, at: int) -> Answered:
    """How a phase's questions were answered at the end; the time is that of all answers of the cell."""
    phases = stream.phases
    rounds = len(phases) * (1 + len(cell.matrix)) + sum(len(one.scores) for one in cell.checks)
    answers = cell.pairs + rounds * len(phases[0].questions)
    return Answered(cell.matrix[-1][at], 100, 1000 * cell.answering_cpu_s / answers)


def row(phase: Phase, who: str, version: str, found: Sequence[Answered], remark: str) -> Row:
    """A line of the table; one answer to the questions a seed."""
    detail = over_seeds([one.quality.detail for one in found])
    ms = fmean(one.cpu_ms for one in found)
    return {
        "task": phase.name,
        "who": who,
        "version": version,
        "exact, %": str(over_seeds([one.quality.exact for one in found])),
        "in the field": "" if phase.metric == "exact" else f"{DETAIL[phase.metric]}: {detail}",
        "answered, %": f"{fmean(one.answered for one in found):.0f}",
        "CPU-ms a question": f"{ms:.1f}" if ms >= 0.05 else "< 0.1",
        "remark": remark,
    }


EXPLAINED = """The held-out questions of `learning` (100 a task and seed; seeds 1 to 3), asked of programs
that people use for the task. Means over the seeds with 95 % intervals. EdgeSeq learnt so many pairs of each
task on the stream of tasks, starting from the shipped base; a peer has what it comes with, unless the
remark says what it learnt. A question without an answer counts as wrong. CPU-ms: one thread, many questions
at once, without loading and the start of commands (so a command's is told to about a millisecond);
EdgeSeq's is the mean over all tasks, by the native engine. Suffix rules that learnt the same pairs stand in
`learning`: they are the best at German plurals."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    try:
        ours = runs(BenchFolder(args.folder))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    if not ours:
        sys.exit(
            f"error: {args.folder} holds no cell of edgeseq on the stream of tasks: run the first command"
        )
    streams = [stream for _, stream in ours]
    rows = []
    for at, phase in enumerate(streams[0].phases):
        found = [edgeseq(cell, stream, at) for cell, stream in ours]
        rows.append(row(phase, f"EdgeSeq, {len(phase.train):,} pairs", __version__, found, ""))
        for peer in PEERS:
            if peer.task == phase.task:
                print(f"{phase.task}: {peer.name} ...", flush=True)
                try:
                    found = [asked(peer, stream.phases[at]) for stream in streams]
                except MissingError:
                    print(f"left out: {peer.name} is not installed; get it with: {peer.install}")
                else:
                    rows.append(row(phase, peer.name, peer.version, found, peer.remark))
    publish("peers", "python benchmarks/peers.py FOLDER", rows, EXPLAINED)


def runs(folder: BenchFolder) -> list[tuple[Cell, Stream]]:
    """EdgeSeq's cells of the stream of tasks, with their streams, a seed each."""
    return [
        (cell, folder.kept_stream(TASK_STREAM, cell.seed))
        for cell in folder.cells()
        if (cell.stream, cell.method) == (TASK_STREAM, "edgeseq")
    ]


if __name__ == "__main__":
    main()
