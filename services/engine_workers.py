"""Engines in processes of their own, which take turns in short rounds, one at work at a time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgeseq_core.errors import ServiceError
from edgeseq_core.evaluate.engines.registry import KINDS
from edgeseq_core.evaluate.machine import busy_cpu_s


@dataclass
class Worker:
    """An engine in its process."""

    process: subprocess.Popen[str]
    version: str

    def ask(self, batch: int, tasks: int, seconds: float) -> dict[str, float]:
        """Medians of one round."""
        found: dict[str, float] = self._ask({"batch": batch, "tasks": tasks, "seconds": seconds})
        return found

    def answers(self) -> list[str] | None:
        """To the sources that all engines get; None where the network is another one."""
        found: list[str] | None = self._ask({})
        return found

    def _ask(self, question: Mapping[str, Any]) -> Any:
        assert self.process.stdin
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return _answer(self.process)


def _answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        words = " ".join(map(str, process.args))  # type: ignore[arg-type]
        raise ServiceError(f"{words} ended: what it said stands above")
    return json.loads(line)


@contextmanager
def started(
    engine: str, folder: Path, *, threads: int = 1, variant: str | None = None, avx2: bool = False
) -> Iterator[Worker]:
    """A worker that is ready; ``avx2`` forbids its peers more than that."""
    module = f"{__package__}.engine_worker"
    command = [sys.executable, "-P", "-m", module, engine, str(folder), "--threads", str(threads)]
    process = subprocess.Popen(
        command + (["--variant", variant] if variant else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=KINDS[engine].variables(threads, avx2=avx2),
    )
    try:
        yield Worker(process, _answer(process)["version"])
    finally:
        process.terminate()
        process.communicate()


class Measured(NamedTuple):
    """Milliseconds by worker and round, and how many cores others used meanwhile."""

    ms: dict[str, list[float]]
    foreign: float

    def median(self, name: str) -> float:
        """Of a worker."""
        return statistics.median(self.ms[name])

    def faster(self, name: str, than: Sequence[str]) -> float:
        """How many times as fast as the best of some: median over rounds."""
        best = min(than, key=self.median)
        return statistics.median(b / a for a, b in zip(self.ms[name], self.ms[best], strict=True))


def alternate(
    asked: Mapping[str, tuple[Worker, int]], batch: int, *, rounds: int, seconds: float, clock: str
) -> Measured:
    """Rounds in which each worker has its turn, with so many tasks in its batches."""
    ms: dict[str, list[float]] = {name: [] for name in asked}
    for worker, tasks in asked.values():
        worker.ask(batch, tasks, 0)  # warm
    began, busy, own = time.perf_counter(), busy_cpu_s(), 0.0
    for _ in range(rounds):
        for name, (worker, tasks) in asked.items():
            found = worker.ask(batch, tasks, seconds)
            ms[name].append(found[clock])
            own += found["cpu_s"]
    spent = time.perf_counter() - began
    return Measured(ms, max(0.0, busy_cpu_s() - busy - own) / spent)
