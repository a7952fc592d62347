"""What the demo teaches, in which order; the pairs themselves are made by a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from edgeseq_core.errors import ConfigError, MissingExtraError, ServiceError

TASKS = ("dates", "spanish-verbs", "english-inflection", "german-plurals")
FLIPPED = "dates"
FLIP_PHASE = "dates, day first"
PAIRS = 2_000
FLIP_PAIRS = 1_500
HELD_OUT = 100  # sources asked of each phase
# What the four tasks are read from: import name -> package
PACKAGES = {
    "babel": "babel",
    "german_nouns": "german-nouns",
    "lemminflect": "lemminflect",
    "verbecc": "verbecc",
}
LEARNER_PACKAGES = ("torch", "river")

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a person asks the demo to teach."""

    tasks: tuple[str, ...] = TASKS
    pairs: int = PAIRS
    flip_pairs: int = FLIP_PAIRS  # 0: the date order does not flip
    held_out: int = HELD_OUT
    seed: int = 1

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise ConfigError(
                f"the demo has no task {unknown[0] if unknown else ''!r}; it has {', '.join(TASKS)}"
            )
        if self.pairs < 1 or self.held_out < 1 or self.flip_pairs < 0:
            raise ConfigError("--pairs must be 1 or more, --flip-pairs 0 or more; correct them")

    def phases(self) -> list[tuple[str, str, int]]:
        """Name, task and pairs of each phase.

        >>> Order(tasks=("dates",), pairs=10, flip_pairs=5).phases()
        [('dates', 'dates', 10), ('dates, day first', 'dates', 5)]
        """
        named = [(task, task, self.pairs) for task in self.tasks]
        if self.flip_pairs and FLIPPED in self.tasks:
            named.append((FLIP_PHASE, FLIPPED, self.flip_pairs))
        return named


@dataclass(frozen=True)
class Lesson:
    """The pairs of a phase, its held-out pairs, and what the bare base answers to those."""

    phase: str
    pairs: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    at_pair_0: tuple[str, ...]

    @classmethod
    def from_json(cls, line: str) -> Lesson:
        """Read a line of `prepare`."""
        data: Mapping[str, Any] = json.loads(line)
        return cls(
            data["phase"],
            tuple((source, target) for source, target in data["pairs"]),
            tuple((source, target) for source, target in data["held_out"]),
            tuple(data["at_pair_0"]),
        )


def require_packages() -> None:
    """Raise MissingExtraError unless all that the demo needs is installed; imports nothing."""
    for name in LEARNER_PACKAGES:
        if find_spec(name) is None:
            raise MissingExtraError(
                f"{name}, which the learner needs,", 'run: pip install "edgeseq[all]"'
            )
    for name, package in PACKAGES.items():
        if find_spec(name) is None:
            raise MissingExtraError(
                f"the data package {package}", 'run: pip install "edgeseq[demo]"'
            )


class Preparation:
    """A child process that makes the lessons; it ends, and frees its memory, when it has."""

    def __init__(self, order: Order, *, base: str | None) -> None:
        self._lessons: dict[str, Lesson] = {}
        self._ended = False
        self._changed = threading.Condition()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.prepare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the child
            text=True,
            encoding="utf-8",
        )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"base": base, **asdict(order)}))
        self._child.stdin.close()
        self._reader = threading.Thread(target=self._read, name="demo-lessons", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            lesson = Lesson.from_json(line)
            with self._changed:
                self._lessons[lesson.phase] = lesson
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def ready(self, phase: str) -> Lesson | None:
        """A lesson if it is made already."""
        return self._lessons.get(phase)

    def wait(self, phase: str, stop: threading.Event) -> Lesson | None:
        """A lesson, when it is made; None once ``stop`` is set.  Raises ServiceError."""
        with self._changed:
            while phase not in self._lessons and not stop.is_set():
                if self._ended:
                    raise ServiceError(f"the pairs of the demo cannot be made: {self._why()}")
                self._changed.wait(0.2)
            return self._lessons.get(phase)

    def _why(self) -> str:
        assert self._child.stderr is not None
        lines = self._child.stderr.read().strip().splitlines()
        return lines[-1] if lines else f"the process ended with code {self._child.wait()}"

    def close(self) -> None:
        """End the child if it still runs."""
        self._child.kill()
        self._reader.join()
        self._child.wait()
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()


def right(answers: Sequence[str | None], held_out: Sequence[Pair]) -> float:
    """The share of answers that equal their target, 0 to 1."""
    hits = sum(a == target for a, (_, target) in zip(answers, held_out, strict=True))
    return hits / len(held_out)
