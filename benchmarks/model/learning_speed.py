"""CPU-seconds to an accuracy on unseen tasks: calibration, native and by PyTorch, against full fine-tuning.

    python benchmarks/model/learning_speed.py --g2p FOLDER --histnorm FOLDER [--tasks g2p-fre,...]
        [--cpu-s 40] [--pairs 3000] [--seeds 1,2]

All pairs of a task are there from the start; each step takes 64 of them at random, the same ones for every
learner.  After every ``--cpu-s`` / 40 CPU-seconds of steps, held-out pairs are answered (not counted).
Learners take turns after each such slice, so that what else the machine does meets them alike.
Calibration has the settings that ship; full fine-tuning has the step size that is the best of
benchmarks/results/unseen.md on the task.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from report import publish
from unseen import Calibrated, Learner, Pairs, Task, data, fine_tuned

from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings

SLICES = 40
BATCH = 64
RATES = {"g2p-fre": 5e-3, "g2p-arm_e": 2e-3, "spanish-verbs": 1e-2}  # of full fine-tuning
SHARES = (0.5, 0.8, 0.9, 0.95)  # of what full fine-tuning has at the end
FINE_TUNING = "full fine-tuning"


@dataclass
class Run:
    """One learner on one task: its steps so far, and accuracy after each slice."""

    learner: Learner
    batches: random.Random
    used_s: float = 0.0
    steps: int = 0
    curve: list[tuple[float, float]] = field(default_factory=list)  # CPU-seconds, % right

    def go_on(self, train: Pairs, until_s: float) -> None:
        """Steps until so many CPU-seconds are used."""
        while self.used_s < until_s:
            batch = self.batches.choices(train, k=BATCH)
            began = time.process_time()
            self.learner.step([], batch)
            self.used_s += time.process_time() - began
            self.steps += 1

    def look(self, held_out: Pairs) -> None:
        """Answer the held-out pairs."""
        self.curve.append((self.used_s, 100 * self.learner.exact(held_out)))

    def seconds_to(self, accuracy: float) -> float | None:
        """CPU-seconds until it was reached, between two looks in proportion; None: never."""
        before = (0.0, 0.0)
        for seconds, reached in self.curve:
            if reached >= accuracy:
                (s, a), gain = before, max(reached - before[1], 1e-9)
                return s + (seconds - s) * max(0.0, accuracy - a) / gain
            before = (seconds, reached)
        return None


def learners(base: Base, task: Task, settings: LearningSettings) -> dict[str, Learner]:
    """Those that are compared."""
    torch_settings = settings.model_copy(update={"engine": "torch"})
    return {
        "calibration": Calibrated(base, task.name, settings),
        "calibration, PyTorch": Calibrated(base, task.name, torch_settings),
        FINE_TUNING: fine_tuned(base, task, settings, RATES[task.name]),
    }


def measured(
    base: Base, task: Task, settings: LearningSettings, cpu_s: float
) -> list[dict[str, object]]:
    """A row a learner."""
    runs = {
        name: Run(learner, random.Random(settings.seed))
        for name, learner in learners(base, task, settings).items()
    }
    for at in range(SLICES):
        for run in runs.values():
            run.go_on(task.train, cpu_s * (at + 1) / SLICES)
            run.look(task.held_out)
    end = fmean(reached for _, reached in runs[FINE_TUNING].curve[-3:])
    rows = []
    for name, run in runs.items():
        row: dict[str, object] = {"task": task.name, "seed": settings.seed, "learner": name}
        row["pairs / CPU-s"] = round(BATCH * run.steps / run.used_s)
        row["at the end, %"] = fmean(reached for _, reached in run.curve[-3:])
        for share in SHARES:
            seconds = run.seconds_to(share * end)
            row[f"CPU-s to {share * 100:.0f} %"] = "" if seconds is None else round(seconds, 2)
        rows.append(row)
        print(row, flush=True)
    return rows


def notes(rows: list[dict[str, object]], cpu_s: float, pairs: int) -> str:
    """How many times cheaper, over tasks and seeds."""
    said = []
    for share in SHARES:
        column = f"CPU-s to {share * 100:.0f} %"
        of = {(row["task"], row["seed"], row["learner"]): row[column] for row in rows}
        ratios = [
            float(str(of[task, seed, FINE_TUNING])) / float(str(seconds))
            for (task, seed, learner), seconds in of.items()
            if learner == "calibration" and seconds != "" and of[task, seed, FINE_TUNING] != ""
        ]
        if ratios:
            few = f" ({len(ratios)} runs that both reached)"
            said.append(f"{share * 100:.0f} %: {fmean(ratios):.1f}, worst {min(ratios):.1f}{few}")
    return (
        f"{pairs:,} pairs a task, {BATCH} a step, {cpu_s:g} CPU-seconds of steps a learner. Accuracy: exact "
        "match on held-out pairs, the mean of the last three looks. CPU-s to n %: until n % of what full "
        "fine-tuning has at the end. A pair is counted each time it is in a step.\n\n"
        "How many times cheaper calibration is, full fine-tuning's CPU-seconds by its own, mean over tasks "
        f"and seeds: {'; '.join(said)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--histnorm", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(RATES))
    parser.add_argument("--cpu-s", type=float, default=40)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--seeds", default="1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, rows = Base.load(), list[dict[str, object]]()
    command = (
        "python benchmarks/model/learning_speed.py --g2p FOLDER --histnorm FOLDER "
        f"--cpu-s {args.cpu_s:g} --pairs {args.pairs} --seeds {args.seeds}"
    )
    for seed in map(int, args.seeds.split(",")):
        settings, args.seed = LearningSettings(seed=seed), seed
        for name in args.tasks.split(","):
            task = data(name, args)
            short = Task(task.name, task.train[: args.pairs], task.held_out)
            for learner in learners(base, short, settings).values():
                learner.step([], short.train[:BATCH])  # torch's first call is slow
            rows += measured(base, short, settings, args.cpu_s)
            publish("learning-speed", command, rows, notes(rows, args.cpu_s, args.pairs))


if __name__ == "__main__":
    main()
