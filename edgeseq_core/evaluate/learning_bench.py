"""One cell of the stream bench: one method learns one stream, is asked along the way, and is measured.

Pairs come in batches, in order.  The sources of a batch are answered before the batch is learnt
(test, then train); the questions of the phases are asked when a phase ends, and thrice inside it.
"""

from __future__ import annotations

import hashlib
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from edgeseq_core.corpus.streams import Phase, Stream
from edgeseq_core.evaluate.measures import Check
from edgeseq_core.evaluate.methods.method import Method, Terms
from edgeseq_core.evaluate.quality import Quality, quality

FORMAT = "edgeseq-learning-1"
CHECKS = (0.05, 0.25, 0.5)  # of a phase's pairs; the first sees what a switch does at once


@dataclass
class Cell:
    """What one method did on one stream with one seed; scores in %, one a phase."""

    identity: str  # see `identity`
    stream: str
    method: str
    seed: int
    untrained: list[Quality] = field(default_factory=list)
    #: After each phase, on the questions of all phases; the last row alone of a method that is not online.
    matrix: list[list[Quality]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    hits: str = ""  # of an online method: 1 where the answer before learning was right, one a pair
    pairs: int = 0
    learning_cpu_s: float = 0.0
    answering_cpu_s: float = 0.0
    model_bytes: int = 0
    buffer_bytes: int = 0
    peak_resident_bytes: int = 0  # of the process, asking included

    @property
    def exact(self) -> list[list[float]]:
        """The accuracy matrix."""
        return [[one.exact for one in row] for row in self.matrix]

    @property
    def online(self) -> bool:
        """Whether it was scored after every phase."""
        return bool(self.hits)


CELL = TypeAdapter(Cell)
STREAM = TypeAdapter(Stream)


def identity(stream: Stream, method: str, terms: Terms) -> str:
    """A digest of all that decides a cell but the code."""
    parts = {
        "format": FORMAT,
        "stream": hashlib.sha256(STREAM.dump_json(stream)).hexdigest(),
        "method": method,
        "base": terms.base.digest,
        "learning": terms.learning.in_manifest(),
        "task_bytes": terms.task_bytes,
        "steps": terms.steps,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_cell(
    stream: Stream,
    name: str,
    make: Callable[[Terms], Method],
    terms: Terms,
    on_progress: Callable[[str], None] = lambda _said: None,
) -> Cell:
    """Learn a stream and measure it; to say anything of memory, in a process of its own."""
    cell = Cell(identity(stream, name, terms), stream.name, name, terms.learning.seed)
    _Run(stream, make(terms), terms, cell, on_progress).run()
    cell.peak_resident_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return cell


@dataclass
class _Run:
    """A cell in the making."""

    stream: Stream
    method: Method
    terms: Terms
    cell: Cell
    on_progress: Callable[[str], None]

    def run(self) -> None:
        phases, online = self.stream.phases, self.method.online
        self.cell.untrained = self._ask(phases)
        for at, phase in enumerate(phases):
            self._learn(at, phase)
            following = phases[at + 1].task if at + 1 < len(phases) else None
            if following != phase.task:
                began = time.process_time()
                self.method.end(last=following is None)
                self.cell.learning_cpu_s += time.process_time() - began
            if online or following is None:
                self.cell.matrix.append(self._ask(phases))
                mean = sum(one.exact for one in self.cell.matrix[-1][: at + 1]) / (at + 1)
                self._say(at, f"done; {mean:.1f} % right on the phases so far")
        self.cell.model_bytes, self.cell.buffer_bytes = self.method.stored()

    def _learn(self, at: int, phase: Phase) -> None:
        batch, total = self.terms.batch, len(phase.train)
        due = [share * total for share in CHECKS] if self.method.online else []
        for start in range(0, total, batch):
            pairs = phase.train[start : start + batch]
            if self.method.online:
                answers = self._answers(phase.task, [source for source, _ in pairs])
                self.cell.hits += "".join(
                    str(int(a == t)) for a, (_, t) in zip(answers, pairs, strict=True)
                )
            began = time.process_time()
            self.method.learn(phase.task, pairs)
            self.cell.learning_cpu_s += time.process_time() - began
            self.cell.pairs += len(pairs)
            learnt = start + len(pairs)
            if due and learnt >= due[0] and learnt < total:
                due = [point for point in due if point > learnt]
                scores = [one.exact for one in self._ask(self.stream.phases[: at + 1])]
                self.cell.checks.append(Check(at, learnt, scores))
                self._say(at, f"{learnt} of {total} pairs, {scores[-1]:.1f} % right")

    def _ask(self, phases: Sequence[Phase]) -> list[Quality]:
        """Quality on the questions of phases."""
        found = []
        for phase in phases:
            answers = self._answers(phase.task, [q.source for q in phase.questions])
            found.append(quality(phase.metric, answers, phase.questions))
        return found

    def _answers(self, task: str, sources: Sequence[str]) -> list[str]:
        began = time.process_time()
        answers = self.method.answers(task, sources)
        self.cell.answering_cpu_s += time.process_time() - began
        return answers

    def _say(self, at: int, what: str) -> None:
        phases = self.stream.phases
        self.on_progress(f"phase {at + 1} of {len(phases)}, {phases[at].name}: {what}")
