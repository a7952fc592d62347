"""What is asked of an engine that is measured, and how its time is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

TOKENS = 16  # of a source, its end included, and of an answer
LEAST_CALLS = 2
SOURCES = (
    "a source of text",
    "21 March in 2027",
    "Reihenhaus - 17b",
    "the quick brown!",
    "0123456789 +-*/=",
    "zzzzzzzz aaaaaaa",
    "nous finissions.",
    "(x + y) * z == w",
    "3. Februar 2027 ",
    "twelve and thirty",
    "Donaudampfschiff",
    "les chevaux noirs",
    "organisation of ",
    "2027-03-04 05:06",
    "habla con nosotros",
    "unbelievable end",
)  # of more than 15 characters, of which 15 are read

Work = Callable[[], object]


def sources() -> list[str]:
    """What the engines answer, equally long."""
    return [source[: TOKENS - 1] for source in SOURCES]


class Peer(Protocol):
    """An engine with its models loaded."""

    def prepare(self, batch: int, tasks: int) -> Work:
        """One call that answers so many rows of so many tasks; 0: without a calibration."""

    def answers(self, sources: Sequence[str]) -> list[str] | None:
        """What the base alone answers, 16 tokens each; None where the network is another one."""


class Taken(NamedTuple):
    """Medians of wall and CPU milliseconds a call, of all threads, and CPU seconds in all."""

    wall_ms: float
    cpu_ms: float
    cpu_s: float


def take_time(work: Work, seconds: float) -> Taken:
    """Call again and again for so long."""
    walls, cpus = list[float](), list[float]()
    began, cpu_began = time.perf_counter(), time.process_time()
    while len(walls) < LEAST_CALLS or time.perf_counter() - began < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(1e3 * (time.perf_counter() - wall))
        cpus.append(1e3 * (time.process_time() - cpu))
    return Taken(statistics.median(walls), statistics.median(cpus), time.process_time() - cpu_began)
