"""The demo's lessons as JSON lines on stdout, one a phase, in order.

Run by `plan.Preparation` as a process of its own: data packages and a second copy of the base take
memory that the demo does not need afterwards.  The order comes as one JSON object on stdin.
"""

from __future__ import annotations

import json
import sys
from itertools import islice

from edgeseq_core.corpus.demo import DEMO_TASKS, dates_task
from edgeseq_core.errors import EdgeSeqError

from .plan import FLIP_PHASE, Order

HELD_OUT_SEED_STEP = 1_000  # held-out sources are drawn in another order than the pairs
FLIP_SEED_STEP = 1  # dates after the flip are new ones


def main() -> int:
    """Write all lessons; the bare base's answers first need torch, so packages are read before."""
    order = json.load(sys.stdin)
    path = order.pop("base")
    chosen = Order(**{**order, "tasks": tuple(order["tasks"])})
    try:
        from pathlib import Path

        from edgeseq_core.learn.offline import OfflineLearner
        from edgeseq_core.model.base import Base
        from edgeseq_core.settings import LearningSettings

        learner = OfflineLearner(Base.load(Path(path) if path else None), LearningSettings())
        for phase, name, count in chosen.phases():
            flipped = phase == FLIP_PHASE
            task = dates_task(day_first=True) if flipped else DEMO_TASKS[name]
            seed = chosen.seed + FLIP_SEED_STEP * flipped
            held_out = task.held_out(chosen.held_out, chosen.seed + HELD_OUT_SEED_STEP)
            lesson = {
                "phase": phase,
                "pairs": [(e.source, e.target) for e in islice(task.train(seed), count)],
                "held_out": [(e.source, e.target) for e in held_out],
                "at_pair_0": learner.answers(name, [e.source for e in held_out]),
            }
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
