"""What int8 costs: the same calibrations as the learner holds them in fp32, and as the bytes that serve.

    python benchmarks/model/int8.py [--pairs 1500] [--held-out 1000] [--seeds 2]

Each demo task is taught offline on the shipped base, on one thread.  Its calibration, averaged as it is
offered, then scores held-out pairs in fp32; so do its int8 bytes, in the engine that serves them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import PairRow, Score  # noqa: E402
from edgeseq_core.learn.learner import TaskLearner  # noqa: E402
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.batch import pad  # noqa: E402
from edgeseq_core.model.calibrated_weights import MergedWeights  # noqa: E402
from edgeseq_core.model.calibration import Calibration  # noqa: E402
from edgeseq_core.model.source_encoder import BatchEncoder  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine, teacher_forced  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402
from edgeseq_core.text.vocabulary import BOS, EOS  # noqa: E402

BATCH = 50  # held-out pairs scored at once
WANTED = 0.3  # points lost at most
FP32_BYTES = 4

Pairs = Sequence[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_500)
    parser.add_argument("--held-out", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = Base.load()
    rows = []
    for task in DEMO_TASKS:
        for seed in range(1, args.seeds + 1):
            rows.append(measured(base, task, seed, pairs=args.pairs, held_out=args.held_out))
            print(rows[-1], flush=True)
    publish(
        "int8",
        f"python benchmarks/model/int8.py --pairs {args.pairs} --held-out {args.held_out} "
        f"--seeds {args.seeds}",
        rows,
        notes(rows),
    )


def measured(
    base: Base, task: str, seed: int, *, pairs: int, held_out: int
) -> dict[str, float | str]:
    """One row of the table."""
    examples = [(e.source, e.target) for e in islice(DEMO_TASKS[task].train(seed), pairs)]
    tested = [(e.source, e.target) for e in DEMO_TASKS[task].held_out(held_out, seed)]
    learner = taught(base, task, seed, examples)
    own, payload = learner.averaged(), learner.payload()
    full, served = list(in_fp32(base, own, tested)), list(in_int8(base, task, payload, tested))
    pairs_of_scores = list(zip(full, served, strict=True))
    return {
        "task": task,
        "seed": seed,
        "held out": len(tested),
        "right, fp32": right(full),
        "right, int8": right(served),
        "lost": right(full) - right(served),
        "only fp32 right": sum(a.exact and not b.exact for a, b in pairs_of_scores),
        "only int8 right": sum(b.exact and not a.exact for a, b in pairs_of_scores),
        "nats a token, fp32": nats(full),
        "more, int8": nats(served) - nats(full),
        "most of a pair": max(abs(a.loss - b.loss) for a, b in pairs_of_scores),
        "KiB, fp32": own.numbers * FP32_BYTES / 1024,
        "KiB, int8": len(payload) / 1024,
    }


def taught(base: Base, task: str, seed: int, examples: Pairs) -> TaskLearner:
    """The task's learner after all examples."""
    offline = OfflineLearner(base, LearningSettings(seed=seed))
    (*_, last) = learn_pairs(offline, task, examples)
    return last.turn.learner


def in_fp32(base: Base, calibration: Calibration, pairs: Pairs) -> Iterator[Score]:
    """Scores by the calibration as it is, in the arithmetic of the engine."""
    weights, encoder, table = MergedWeights(calibration), BatchEncoder(base), calibration.table
    for some in batches(pairs):
        with torch.no_grad():
            memory = encoder.encode([source for source, _ in some], [table] * len(some), weights)
            target = pad([[BOS, *table.encode(text), EOS] for _, text in some])
            scores = base.model.scores(target[:, :-1], memory, weights)
            yield from teacher_forced(scores, target[:, 1:])


def in_int8(base: Base, task: str, payload: bytes, pairs: Pairs) -> Iterator[Score]:
    """Scores by the bytes, in the engine that serves them."""
    engine = TorchEngine(base)
    engine.swap(task, task, payload)
    for some in batches(pairs):
        yield from engine.score([PairRow(task, source, target) for source, target in some])


def batches(pairs: Pairs) -> Iterator[Pairs]:
    """The pairs, some at a time."""
    return (pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH))


def right(scores: Sequence[Score]) -> float:
    """Exact answers, in %."""
    return 100 * sum(score.exact for score in scores) / len(scores)


def nats(scores: Sequence[Score]) -> float:
    """Mean loss of a token."""
    return sum(score.loss for score in scores) / sum(score.tokens for score in scores)


def notes(rows: Sequence[dict[str, float | str]]) -> str:
    """What the table says, and what it leaves out."""
    lost = [float(row["lost"]) for row in rows]
    return (
        "Right: exact match of the greedy answer, in %; lost: points that int8 gives away (negative: "
        "gains). More: nats a token that int8 adds; most of a pair: the largest change of a pair's whole "
        "loss, in nats. KiB: numbers of the calibration in fp32, and the snapshot's bytes with header and "
        f"place of the task. Mean lost {sum(lost) / len(lost):.2f}, worst {max(lost):.2f} points (wanted: "
        f"at most {WANTED:g}).\n\n"
        "The base is int8 on both sides, as learning uses its dequantised values: only the rounding of "
        "the calibration is measured here, not what quantizing the base cost."
    )


if __name__ == "__main__":
    main()
