"""The cells of a stream bench, each in a process of its own, so that its time and memory are its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal, NamedTuple

from edgeseq_core.corpus.streams import Size
from edgeseq_core.errors import (
    ConfigError,
    EdgeSeqError,
    MissingDataError,
    MissingExtraError,
    ServiceError,
)
from edgeseq_core.evaluate.bench_folder import BenchFolder, CellKey
from edgeseq_core.evaluate.learning_bench import identity, run_cell
from edgeseq_core.evaluate.measures import average_accuracy
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.evaluate.methods.registry import METHODS, NEED_TASKS
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which cells a bench has, and on what terms."""

    streams: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    pairs: int  # a task
    questions: int  # a phase
    tasks: int  # of the stream of tasks
    task_bytes: int  # beside the base, a task
    base: Path | None  # None: the shipped one
    data: Path  # what `edgeseq bench fetch` and people put there

    def terms(self, tasks: Sequence[str], seed: int) -> Terms:
        """What a method of a cell is given."""
        return Terms(Base.load(self.base), tasks, LearningSettings(seed=seed), self.task_bytes)


def short_plan(plan: Plan) -> Plan:
    """The same in about a minute: a learner that works is told from one that does not, no more."""
    return replace(
        plan,
        streams=("tasks",),
        methods=("edgeseq", "er", "fine-tuning"),
        seeds=(1,),
        pairs=96,
        questions=32,
        tasks=3,
    )


class Event(NamedTuple):
    """What became of a cell, or of a whole stream (``key`` is None)."""

    key: CellKey | None
    kind: Literal["left out", "kept", "running", "done"]
    said: str = ""


def run_bench(plan: Plan, folder: BenchFolder, workers: int) -> Iterator[Event]:
    """Run every cell that is not there yet; a stream whose data is missing is said and left out.

    Raises ConfigError when no stream can be made or the folder holds another bench, ServiceError when a
    cell's process dies.
    """
    due = []
    made = 0
    for name in plan.streams:
        for seed in plan.seeds:
            size = Size(plan.pairs, plan.questions, seed)
            try:
                stream = folder.stream(name, size, plan.data, plan.tasks)
            except (MissingDataError, MissingExtraError) as error:
                yield Event(None, "left out", f"{name}: {error}")
                break
            made += 1
            yield from (Event(None, "left out", said) for said in stream.left_out)
            terms = plan.terms(stream.tasks, seed)
            for method in plan.methods:
                if stream.kind != "tasks" and method in NEED_TASKS:
                    continue
                key = CellKey(name, method, seed)
                if folder.cell(key, identity(stream, method, terms)) is None:
                    due.append(key)
                else:
                    yield Event(key, "kept")
    if not made:
        raise ConfigError("no stream can be made here: the lines above say what to install")
    yield from _run(plan, folder, due, workers)


def _run(plan: Plan, folder: BenchFolder, due: Sequence[CellKey], workers: int) -> Iterator[Event]:
    waiting = list(reversed(list(enumerate(due, start=1))))
    running: dict[Connection, tuple[CellKey, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                place, key = waiting.pop()
                running.update([_start(plan, folder, key)])
                yield Event(key, "running", f"as cell {place} of {len(due)}")
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                key, process = running[connection]
                try:
                    yield Event(key, *connection.recv())
                except EOFError:
                    process.join()
                    del running[connection]
                    if process.exitcode:
                        raise ServiceError(
                            f"the cell {key} ended with exit code {process.exitcode}; what it said "
                            "stands above"
                        ) from None
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _start(
    plan: Plan, folder: BenchFolder, key: CellKey
) -> tuple[Connection, tuple[CellKey, SpawnProcess]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_cell, args=(theirs, plan, folder, key), name=str(key), daemon=True
    )
    process.start()
    theirs.close()
    return ours, (key, process)


def _run_cell(connection: Connection, plan: Plan, folder: BenchFolder, key: CellKey) -> None:
    """The child: one thread computes, as in the services."""
    import sys

    import torch

    torch.set_num_threads(1)
    stream = folder.kept_stream(key.stream, key.seed)
    try:
        cell = run_cell(
            stream,
            key.method,
            METHODS[key.method],
            plan.terms(stream.tasks, key.seed),
            lambda said: connection.send(("running", said)),
        )
    except EdgeSeqError as error:
        sys.stderr.write(f"{key}: {error}\n")
        raise SystemExit(error.exit_code) from None
    folder.keep(key, cell)
    right = average_accuracy(cell.exact)
    connection.send(("done", f"{right:.1f} % right, {cell.learning_cpu_s:.0f} CPU-s of learning"))
