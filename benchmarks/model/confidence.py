"""Whether confidence can be trusted, and what a beam adds, on held-out pairs of the demo tasks.

    python benchmarks/model/confidence.py [--pairs 1000] [--held-out 600]

Each task is taught offline from its first pairs on the shipped base, on one thread; its champion then
answers held-out sources greedily and with four answers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import Generation, Limits, SourceRow  # noqa: E402
from edgeseq_core.evaluate.confidence import expected_calibration_error  # noqa: E402
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402

N_BEST = 4
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--held-out", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = Base.load()
    rows = [measured(base, task, args.pairs, args.held_out) for task in DEMO_TASKS]
    publish(
        "confidence",
        f"python benchmarks/model/confidence.py --pairs {args.pairs} --held-out {args.held_out}",
        rows,
        "Right and sure (mean confidence) in %. ECE: expected calibration error in points, 15 bins of "
        "equal mass; so few answers show up to "
        f"{40 * (15 / args.held_out) ** 0.5:.1f} by chance alone.",
    )


def measured(base: Base, task: str, pairs: int, held_out: int) -> dict[str, object]:
    """One row of the table."""
    examples = [(e.source, e.target) for e in islice(DEMO_TASKS[task].train(1), pairs)]
    tested = [(e.source, e.target) for e in DEMO_TASKS[task].held_out(held_out, 1)]
    learner = OfflineLearner(base, LearningSettings())
    for _ in learn_pairs(learner, task, examples):
        pass
    engine = TorchEngine(base)
    engine.swap(task, task, learner.payload(task) or learner.loop.identity_payload())
    sources, targets = [s for s, _ in tested], [t for _, t in tested]
    began = time.perf_counter()
    greedy = answers(engine, [SourceRow(task, source) for source in sources])
    middle = time.perf_counter()
    beam = answers(engine, [SourceRow(task, source, N_BEST) for source in sources])
    ended = time.perf_counter()
    right = [made.target == target for made, target in zip(greedy, targets, strict=True)]
    first = [made.target == target for made, target in zip(beam, targets, strict=True)]
    among = [
        target in (made.target, *(other.target for other in made.others))
        for made, target in zip(beam, targets, strict=True)
    ]
    confidences = [made.confidence for made in greedy]
    return {
        "task": task,
        "held out": len(tested),
        "right": percent(right),
        "sure": percent(confidences),
        "ECE": 100 * expected_calibration_error(confidences, right),
        f"right, beam of {N_BEST}": percent(first),
        f"among {N_BEST}": percent(among),
        "ECE, beam": 100 * expected_calibration_error([m.confidence for m in beam], first),
        "time, beam / greedy": (ended - middle) / (middle - began),
    }


def answers(engine: TorchEngine, rows: Sequence[SourceRow]) -> list[Generation]:
    """Answers in batches."""
    starts = range(0, len(rows), BATCH)
    return [made for at in starts for made in engine.generate(rows[at : at + BATCH], Limits())]


def percent(values: Sequence[float]) -> float:
    """The mean, in %."""
    return 100 * sum(values) / len(values)


if __name__ == "__main__":
    main()
