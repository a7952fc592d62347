"""What a task loses when it is learnt anew from its buffer, and what that costs.

    python benchmarks/model/relearn.py [--pairs 1000] [--held-out 300] [--tasks dates german-plurals]

Each task is taught offline from its first pairs on the shipped base, on one thread, then learnt anew on
the same base with more and more passes over its reservoir.  The snapshot that is offered at the end answers
held-out sources, whatever the gate says of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import Limits, SourceRow  # noqa: E402
from edgeseq_core.learn.loop import LearnerLoop  # noqa: E402
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs  # noqa: E402
from edgeseq_core.learn.relearn import relearn  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402

PASSES = (2, 4, 8)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--tasks", nargs="+", default=["dates", "german-plurals"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = Base.load()
    rows = [row for task in args.tasks for row in measured(base, task, args.pairs, args.held_out)]
    publish(
        "relearn",
        f"python benchmarks/model/relearn.py --pairs {args.pairs} --held-out {args.held_out} "
        f"--tasks {' '.join(args.tasks)}",
        rows,
        "Right: held-out sources answered exactly, %. The first row of a task is what it had learnt pair by "
        "pair (its CPU seconds include the gate's at each chunk of 16 pairs). One seed.",
    )


def measured(base: Base, task: str, pairs: int, held_out: int) -> list[dict[str, object]]:
    """The rows of a task: as it was taught, and learnt anew."""
    examples = [(e.source, e.target) for e in islice(DEMO_TASKS[task].train(1), pairs)]
    tested = [(e.source, e.target) for e in DEMO_TASKS[task].held_out(held_out, 1)]
    began = time.process_time()
    learner = OfflineLearner(base, LearningSettings())
    for _ in learn_pairs(learner, task, examples):
        pass
    spent = time.process_time() - began
    champion = learner.payload(task) or learner.loop.identity_payload()
    steps = learner.buffer.state(task).last_step
    rows = [row(task, "as taught", steps, spent, right(base, champion, tested), "promote")]
    for passes in PASSES:
        began = time.process_time()
        config = LearningSettings(relearn_passes=passes, relearn_least_steps=1)
        relearn(learner.registry, task, clock=learner.clock)
        loop = LearnerLoop(
            learner.buffer,
            learner.registry,
            base,
            config,
            partitions=[0],
            partition_count=1,
            clock=learner.clock,
        )
        before = learner.buffer.state(task).last_step
        while learner.registry.relearning([0]):
            loop.run_once()
        spent = time.process_time() - began
        offered = learner.registry.history(task, last=1)[0]
        assert offered.gate is not None
        made = right(base, learner.registry.payload(offered.manifest), tested)
        steps = learner.buffer.state(task).last_step - before
        rows.append(row(task, f"anew, {passes} passes", steps, spent, made, offered.gate.verdict))
    return rows


def right(base: Base, payload: bytes, tested: list[tuple[str, str]]) -> float:
    """Held-out sources that a snapshot answers exactly, %."""
    engine = TorchEngine(base)
    engine.swap("task", "task", payload)
    made = [
        one.target
        for at in range(0, len(tested), BATCH)
        for one in engine.generate(
            [SourceRow("task", source) for source, _ in tested[at : at + BATCH]], Limits()
        )
    ]
    return 100 * sum(a == t for a, (_, t) in zip(made, tested, strict=True)) / len(tested)


def row(
    task: str, how: str, steps: int, spent: float, answered: float, verdict: str
) -> dict[str, object]:
    """One line of the table."""
    return {
        "task": task,
        "learnt": how,
        "steps": steps,
        "CPU seconds": spent,
        "right": answered,
        "gate": verdict,
    }


if __name__ == "__main__":
    main()
