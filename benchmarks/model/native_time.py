"""CPU time of answers by the native engine, which serves: sources of 16 tokens, 16 tokens an answer.

On one thread; CPU time, because that is the time of an idle machine, whatever else runs on this one.
"""

from __future__ import annotations

import statistics
import string
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.evaluate.engines.models import unending
from edgeseq_core.model.base import Base
from edgeseq_core.native.engine import NativeEngine

TOKENS = 16  # of the source, its end included, and of the answer
TURN_S = 0.05  # of one base, before the next has its turn
SOURCE = string.ascii_lowercase[: TOKENS - 1]
TASK = "asked"

Rounds = dict[str, list[float]]  # milliseconds of each base, round by round


def answer_rounds(
    bases: Mapping[str, Path], rows: int, *, turns: int = 21, tokens: int = TOKENS
) -> Rounds:
    """Milliseconds a batch of so many rows; all have their turn in each round, in the same process."""
    works = {name: answering(path, rows, tokens) for name, path in bases.items()}
    found: Rounds = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(turns):
        for name, work in works.items():
            found[name].append(1e3 * _seconds(work))
    return found


def times_faster(rounds: Rounds, name: str, than: str) -> float:
    """How many times as fast: the median over rounds, so that what disturbs the machine hits both alike."""
    return statistics.median(b / a for a, b in zip(rounds[name], rounds[than], strict=True))


def answering(base: Path, rows: int, tokens: int) -> Callable[[], object]:
    """A call that answers a batch, with a calibration of the shape that a new task gets."""
    engine, loaded = NativeEngine(base), Base.load(base)
    engine.swap(TASK, TASK, unending(loaded).to_payload(loaded.digest))
    asked, limits = [SourceRow(TASK, SOURCE)] * rows, Limits(max_tokens=tokens)
    if {made.tokens for made in engine.generate(asked, limits)} != {tokens}:
        raise SystemExit(f"answers of {base} are not {tokens} tokens long")
    return lambda: engine.generate(asked, limits)


def _seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call, median of a turn."""
    took: list[float] = []
    until = time.perf_counter() + TURN_S
    while not took or time.perf_counter() < until:
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)
