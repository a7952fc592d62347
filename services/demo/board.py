"""What the demo knows so far: written by its threads, read by view, log and summary."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .measures import Samples
from .plan import Pair, right

Status = Literal["preparing", "waiting", "learning", "settling", "done"]
EXAMPLES = 5
NOTICES = 2  # shown at once
NOTICE_S = 30.0  # how long each is shown


@dataclass
class Shown:
    """A held-out source whose answer people watch."""

    source: str
    target: str
    first: str | None  # its answer before the phase
    now: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether the latest answer is the target."""
        return self.now == self.target


@dataclass
class Phase:
    """One task being taught; all shares are of held-out sources, 0 to 1."""

    name: str
    task: str
    total: int
    status: Status = "preparing"
    sent: int = 0
    learnt: int = 0  # trained or held out by the learner
    prequential: float | None = None
    held_out: float | None = None  # the latest answers
    at_pair_0: float | None = None  # the bare base
    at_start: float | None = None  # as served when the phase began; None: nothing served
    copying: float | None = None
    suffix_rules: float | None = None  # learnt on the pairs sent so far
    at_end: float | None = None  # of the phase
    final: float | None = None  # at the end of all phases
    snapshot_id: str | None = None
    promoted: int = 0
    held: int = 0
    drifts: int = 0
    drift_flag: bool = False
    began_s: float | None = None  # since the demo started
    ended_s: float | None = None
    examples: list[Shown] = field(default_factory=list)

    def show(self, held_out: Sequence[Pair], before: Sequence[str | None]) -> None:
        """Choose examples: short ones of those answered wrong before the phase."""
        wrong = [
            Shown(source, target, first)
            for (source, target), first in zip(held_out, before, strict=True)
            if first != target
        ]
        self.examples = wrong[:EXAMPLES]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all but the examples' earlier answers, shares to four places."""
        return {
            "phase": self.name,
            "task": self.task,
            "status": self.status,
            "pairs": self.total,
            "sent": self.sent,
            "learnt": self.learnt,
            "prequential_accuracy": _rounded(self.prequential),
            "held_out_accuracy": _rounded(self.held_out),
            "at_pair_0": _rounded(self.at_pair_0),
            "at_start": _rounded(self.at_start),
            "copying": _rounded(self.copying),
            "suffix_rules": _rounded(self.suffix_rules),
            "at_end": _rounded(self.at_end),
            "final": _rounded(self.final),
            "snapshot_id": self.snapshot_id,
            "promoted": self.promoted,
            "held": self.held,
            "drifts": self.drifts,
            "drift_flag": self.drift_flag,
            "began_s": _rounded(self.began_s, 1),
            "ended_s": _rounded(self.ended_s, 1),
            "examples": [
                {
                    "source": e.source,
                    "target": e.target,
                    "before": e.first,
                    "now": e.now,
                    "right": e.is_right,
                }
                for e in self.examples
            ],
        }


@dataclass
class FirstRight:
    """The first held-out source answered right that was wrong at pair 0."""

    phase: str
    source: str
    answer: str
    elapsed_s: float


class Board:
    """All phases, measurements and notices; hold ``lock`` to change or read several of them."""

    def __init__(self, phases: Sequence[tuple[str, str, int]]) -> None:
        self.lock = threading.RLock()
        self.phases = [Phase(name, task, total) for name, task, total in phases]
        self.active: Phase | None = None
        self.doing = "starting"
        self.freshness = Samples()
        self.held_out_samples = 0  # sampled pairs that the learner held out: no freshness
        self.latency = Samples()
        self.first_right: FirstRight | None = None
        self.ready_s: float | None = None  # start to all services ready
        self._notices: deque[tuple[float, str]] = deque(maxlen=NOTICES)
        self.on_notice: Callable[[str], None] = lambda _sentence: None
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo was started."""
        return time.monotonic() - self._started

    def notice(self, sentence: str) -> None:
        """Something a person should know."""
        with self.lock:
            self._notices.append((self.elapsed_s, sentence))
        self.on_notice(sentence)

    def recent_notices(self) -> list[str]:
        """Notices of the last half minute."""
        with self.lock:
            since = self.elapsed_s - NOTICE_S
            return [sentence for at_s, sentence in self._notices if at_s >= since]

    def answered(
        self,
        phase: Phase,
        held_out: Sequence[Pair],
        at_pair_0: Sequence[str],
        answers: Sequence[str | None],
    ) -> None:
        """Take in answers to all held-out sources of a phase."""
        with self.lock:
            phase.held_out = right(answers, held_out)
            for (source, target), first, now in zip(held_out, at_pair_0, answers, strict=True):
                self._see(phase, source, target, first, now)

    def saw(self, phase: Phase, shown: Shown, at_pair_0: str, now: str | None) -> None:
        """Take in one example's answer."""
        with self.lock:
            self._see(phase, shown.source, shown.target, at_pair_0, now)

    def _see(self, phase: Phase, source: str, target: str, first: str, now: str | None) -> None:
        for shown in phase.examples:
            if shown.source == source:
                shown.now = now
        if self.first_right is None and now == target and first != target:
            self.first_right = FirstRight(phase.name, source, target, self.elapsed_s)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        with self.lock:
            first = self.first_right
            return {
                "elapsed_s": round(self.elapsed_s, 1),
                "doing": self.doing,
                "ready_s": _rounded(self.ready_s, 1),
                "first_right": first
                and {
                    "phase": first.phase,
                    "source": first.source,
                    "answer": first.answer,
                    "elapsed_s": round(first.elapsed_s, 1),
                },
                "freshness_s": {
                    **self.freshness.as_dict(50, 95),
                    "held_out": self.held_out_samples,
                },
                "reply_latency_s": self.latency.as_dict(50, 99),
                "phases": [phase.as_dict() for phase in self.phases],
            }


def _rounded(value: float | None, places: int = 4) -> float | None:
    return None if value is None else round(value, places)
