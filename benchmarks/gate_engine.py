"""What the gate costs a learner by the engine that serves, and by PyTorch: CPU time, memory, verdicts.

    python benchmarks/gate_engine.py [--rounds 5] [--pairs 640]

A process learns a demo task offline, as the service does, and rehearses until nothing is due; the two engines
take turns.  The gate's time is that of `LearnerLoop._judge`, and of reading a candidate into the engine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from report import publish

from edgeseq_core.corpus.demo_words import english_inflection
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.learn.offline import OfflineLearner, held_out_accuracy
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings

TASK, CHUNK, HELD_OUT = "english-inflection", 32, 200
ENGINES = {"torch": "PyTorch", "auto": "the one that serves"}
P, R = ParamSpec("P"), TypeVar("R")


class Spent:
    """CPU seconds of the calls of one method."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def of(self, method: Callable[P, R]) -> Callable[P, R]:
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            began = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began
                self.calls += 1

        return timed


def one_run(engine: str, pairs: int) -> dict[str, Any]:
    """What one process finds."""
    torch.set_num_threads(1)
    examples = [(e.source, e.target) for e in english_inflection(1)[: pairs + HELD_OUT]]
    base = Base.load()
    before = resident_mib()
    learner = OfflineLearner(base, LearningSettings())
    loop = learner.loop = LearnerLoop(
        learner.buffer,
        learner.registry,
        base,
        learner.config,
        partitions=[0],
        partition_count=1,
        clock=learner.clock,
        engine=engine,  # type: ignore[arg-type]
    )
    judged, read = Spent(), Spent()
    loop._judge = judged.of(loop._judge)  # type: ignore[method-assign]
    loop._engine.swap = read.of(loop._engine.swap)  # type: ignore[method-assign]
    began = time.process_time()
    for at in range(0, pairs, CHUNK):
        learner.ingest(TASK, examples[at : min(at + CHUNK, pairs)])
        while loop.run_once() is not None:
            pass
    whole, resident = time.process_time() - began, resident_mib()
    history = learner.registry.history(TASK)
    return {
        "cpu_s": whole,
        "judge_s": judged.seconds,
        "read_s": read.seconds,
        "candidates": judged.calls,
        "promoted": sum(r.gate is not None and r.gate.verdict == "promote" for r in history),
        "verdicts": [r.gate.verdict for r in history if r.gate],
        "resident_mib": resident,
        "above_base_mib": resident - before,
        "held_out": held_out_accuracy(learner, TASK, examples[pairs:]),
    }


def resident_mib() -> float:
    """Memory of this process."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def row(engine: str, runs: list[dict[str, Any]]) -> dict[str, object]:
    """A table's row: medians of the runs."""

    def middle(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(run) for run in runs)

    return {
        "the gate scores with": ENGINES[engine],
        "CPU, all (s)": middle(lambda r: r["cpu_s"]),
        "CPU, gate (s)": middle(lambda r: r["judge_s"] + r["read_s"]),
        "share of the gate": f"{100 * middle(lambda r: (r['judge_s'] + r['read_s']) / r['cpu_s']):.1f} %",
        "a candidate (ms)": middle(lambda r: 1e3 * (r["judge_s"] + r["read_s"]) / r["candidates"]),
        "candidates, promoted": f"{runs[0]['candidates']}, {runs[0]['promoted']}",
        "resident (MiB)": middle(lambda r: r["resident_mib"]),
        "of it above the base (MiB)": middle(lambda r: r["above_base_mib"]),
        "held-out accuracy": runs[0]["held_out"],
    }


def main() -> None:
    """Run processes in turns, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=640)
    parser.add_argument("--engine", choices=list(ENGINES), help="one run in this process, as JSON")
    args = parser.parse_args()
    if args.engine:
        print(json.dumps(one_run(args.engine, args.pairs)))
        return
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    for _ in range(args.rounds):
        for engine, found in runs.items():
            command = [sys.executable, __file__, "--engine", engine, "--pairs", str(args.pairs)]
            made = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(made.stdout))
            print({k: v for k, v in found[-1].items() if k != "verdicts"}, flush=True)
    one, other = (found[0]["verdicts"] for found in runs.values())
    differing = sum(a != b for a, b in zip(one, other, strict=False))
    publish(
        "gate-engine",
        f"python benchmarks/gate_engine.py --rounds {args.rounds} --pairs {args.pairs}",
        [row(engine, found) for engine, found in runs.items()],
        f"{args.pairs} pairs of {TASK} on the shipped base, {CHUNK} at a time, with rehearsals; one thread, "
        f"{args.rounds} processes each in turns, medians. Held-out accuracy: on {HELD_OUT} pairs, after the "
        f"last. Verdicts that differ: {differing} of {min(len(one), len(other))}.",
    )


if __name__ == "__main__":
    main()
