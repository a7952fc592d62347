"""The demo's lessons as JSON lines on stdout, one a phase, in order.

Run by `plan.Preparation` as a process of its own: data packages and a second copy of the base take
memory that the demo does not need afterwards.  The order comes as one JSON object on stdin.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from edgeseq_core.corpus.demo import DEMO_TASKS, dates
from edgeseq_core.corpus.examples import DemoTask, Example
from edgeseq_core.errors import EdgeSeqError

from .plan import FLIP_PHASE, Order

FIGURES = re.compile(r"\d\d/\d\d/\d{4}")
HELD_OUT_SEED_STEP = 1_000  # held-out sources are drawn in another order than the pairs
FLIP_SEED_STEP = 1  # dates after the flip are new ones


def day_first_figures(seed: int) -> Iterator[Example]:
    """Yield the dates of the other regime that are written in figures: only these have an order."""
    return (e for e in dates(seed, day_first=True) if FIGURES.fullmatch(e.source))


def lessons(order: Order, base: str | None) -> Iterator[dict[str, Any]]:
    """Each phase's pairs, held-out pairs, and what the bare base answers to those."""
    from edgeseq_core.learn.offline import OfflineLearner
    from edgeseq_core.model.base import Base
    from edgeseq_core.settings import LearningSettings

    learner = OfflineLearner(Base.load(Path(base) if base else None), LearningSettings())
    for phase, name, count in order.phases():
        flipped = phase == FLIP_PHASE
        task = DemoTask(name, phase, day_first_figures) if flipped else DEMO_TASKS[name]
        seed = order.seed + FLIP_SEED_STEP * flipped
        held_out = task.held_out(order.held_out, order.seed + HELD_OUT_SEED_STEP)
        yield {
            "phase": phase,
            "pairs": [(e.source, e.target) for e in islice(task.train(seed), count)],
            "held_out": [(e.source, e.target) for e in held_out],
            "at_pair_0": learner.answers(name, [e.source for e in held_out]),
        }


def main() -> int:
    """Read the order, write the lessons, each as soon as it is made."""
    asked = json.load(sys.stdin)
    base = asked.pop("base")
    try:
        for lesson in lessons(Order(**{**asked, "tasks": tuple(asked["tasks"])}), base):
            sys.stdout.write(json.dumps(lesson, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    except EdgeSeqError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:  # the demo was stopped
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
