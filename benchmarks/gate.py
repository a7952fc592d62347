"""The gate on real tasks: a burst of shuffled targets must not serve, a lasting drift must.

    python benchmarks/gate.py [--seeds 3]

A demo task is taught offline; then comes a burst whose targets are shuffled among its sources, shorter
than the stretch of stream that the recent slice covers; then a lasting drift: every target changes in
the same way.  Shown: accuracy of the champion on held-out pairs before and after the burst, its lowest
value at any promotion in between, how the gate decided, and how many pairs of the new kind it took until
the champion was back at 90 % of its level.
"""

from __future__ import annotations

import argparse
import random
from itertools import islice

from report import publish

from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.learn.loop import Turn
from edgeseq_core.learn.offline import OfflineLearner, held_out_accuracy
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings

RIGHT, DRIFT_PAIRS, HELD_OUT = 900, 2_000, 200
Pairs = list[tuple[str, str]]


class Stream:
    """A task's pairs in order, each given once."""

    def __init__(self, task: str, seed: int) -> None:
        self.task = task
        examples = DEMO_TASKS[task]
        self._pairs = ((e.source, e.target) for e in examples.train(seed))
        self.held_out = [(e.source, e.target) for e in examples.held_out(HELD_OUT, seed)]

    def take(self, count: int) -> Pairs:
        return list(islice(self._pairs, count))


def drifted(pairs: Pairs) -> Pairs:
    """The same sources under a new rule: targets in capitals, a mark at the end."""
    return [(source, target.upper() + "!") for source, target in pairs]


def shuffled(pairs: Pairs, seed: int) -> Pairs:
    """The targets in another order."""
    targets = [target for _, target in pairs]
    random.Random(seed).shuffle(targets)
    return [(source, target) for (source, _), target in zip(pairs, targets, strict=True)]


def teach(learner: OfflineLearner, task: str, pairs: Pairs, *, rehearse: bool) -> list[Turn]:
    """A step's pairs at a time, with its rehearsals as in a stream that is not in a hurry, or none."""
    turns, size = list[Turn](), learner.config.fresh_per_step
    for at in range(0, len(pairs), size):
        learner.ingest(task, pairs[at : at + size])
        while learner.buffer.waiting(0) or rehearse:
            turn = learner.loop.run_once()
            if turn is None:
                break
            turns.append(turn)
    return turns


def row(base: Base, task: str, seed: int, burst: int) -> dict[str, object]:
    """One task, one burst, one drift."""
    config = LearningSettings(seed=seed)
    learner, stream = OfflineLearner(base, config), Stream(task, seed)
    before_turns = teach(learner, task, stream.take(RIGHT), rehearse=True)
    before = held_out_accuracy(learner, task, stream.held_out)
    lowest, turns = before, list[Turn]()
    noise = shuffled(stream.take(burst), seed)
    for at in range(0, burst, config.fresh_per_step):
        turns += teach(learner, task, noise[at : at + config.fresh_per_step], rehearse=False)
        lowest = min(lowest, held_out_accuracy(learner, task, stream.held_out))
    after = held_out_accuracy(learner, task, stream.held_out)
    healed = teach(learner, task, stream.take(RIGHT), rehearse=True)
    level = held_out_accuracy(learner, task, stream.held_out)
    new_held_out, needed = drifted(stream.held_out), 0
    new = drifted(stream.take(DRIFT_PAIRS))
    while needed < len(new):
        teach(learner, task, new[needed : needed + 64], rehearse=True)
        needed += 64
        if held_out_accuracy(learner, task, new_held_out) >= 0.9 * level:
            break
    return {
        "task": task,
        "seed": seed,
        "burst": burst,
        "before": before,
        "lowest in burst": lowest,
        "after burst": after,
        "in burst: promoted/held": decided(turns),
        "before: promoted/held": decided(before_turns),
        "900 right pairs later": level,
        "then: promoted/held": decided(healed),
        "drift: pairs to 90 %": needed if needed < len(new) else f"> {needed}",
    }


def decided(turns: list[Turn]) -> str:
    verdicts = [turn.gate.report.verdict for turn in turns if turn.gate]
    return f"{verdicts.count('promote')}/{verdicts.count('hold')}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="*", default=list(DEMO_TASKS))
    parser.add_argument("--bursts", nargs="*", type=int, default=[64, 200, 500])
    args = parser.parse_args()
    base, rows = Base.load(), list[dict[str, object]]()
    for task in args.tasks:
        for seed in range(1, args.seeds + 1):
            for burst in args.bursts:
                rows.append(row(base, task, seed, burst))
                print(rows[-1], flush=True)
    bursts = " ".join(map(str, args.bursts))
    publish("gate", f"python benchmarks/gate.py --seeds {args.seeds} --bursts {bursts}", rows)


if __name__ == "__main__":
    main()
