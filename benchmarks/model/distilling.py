"""Does a student that follows a teacher learn more than one that reads labels alone, in equal CPU time?

    python benchmarks/model/distilling.py FOLDER [--steps 400]

The student has the shape of the shipped base, the teacher is the shipped base, trained on until its tasks
have starts of their own again.  All read the same pairs of every twelfth task of the mixture.  FOLDER keeps
teacher, students and finished rows: a run that was killed goes on with the first row that is missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import publish

from edgeseq_core.corpus import mixture
from edgeseq_core.corpus.base import BASE_TASKS
from edgeseq_core.model.compress import DistillSettings, pretrain_taught, trainee_of
from edgeseq_core.model.mixture_batches import Pairs
from edgeseq_core.model.pretrain import PretrainReport, PretrainSettings, pretrain
from edgeseq_core.model.run_folder import run_path
from edgeseq_core.model.teacher import Level
from edgeseq_core.model.trainee import Trainee

ONE_IN = 12  # tasks of the mixture
PAIRS = 2_000  # a task, of which lessons are made
TEACHER = PretrainSettings(steps=50, learning_rate=5e-4, warmup_steps=5)
WARMUP_STEPS = 50

Split = dict[str, Pairs]


class Bench:
    """The data, the teacher, and a folder that remembers what is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        splits = {
            name: mixture.split(BASE_TASKS[name], TEACHER.seed, mixture.CAP)
            for name in sorted(BASE_TASKS)[::ONE_IN]
        }
        self.whole: Split = {name: train for name, (train, _) in splits.items()}
        self.train: Split = {name: pairs[:PAIRS] for name, pairs in self.whole.items()}
        self.dev: Split = {name: dev for name, (_, dev) in splits.items() if dev}
        self.teacher = folder / "teacher.safetensors"

    def row(self, name: str, settings: PretrainSettings, level: Level | None) -> dict[str, Any]:
        """Train one student, or remember it."""
        kept = self.folder / f"{name}.json"
        if not kept.exists():
            kept.write_text(json.dumps(self._measured(name, settings, level)))
        row: dict[str, Any] = json.loads(kept.read_text())
        print(row, flush=True)
        return row

    def teach_teacher(self) -> dict[str, Any]:
        """The shipped base with starts for these tasks, and trained on with them."""
        kept = self.folder / "teacher.json"
        if not kept.exists():
            began = time.process_time()
            trainee = trainee_of(None, self.whole, TEACHER)
            _drain(pretrain(self.whole, {}, self.teacher, TEACHER, trainee=trainee))
            seconds = time.process_time() - began
            kept.write_text(
                json.dumps({"CPU-s": seconds, "dev %": self.accuracy(Trainee.of_run(self.teacher))})
            )
        row: dict[str, Any] = json.loads(kept.read_text())
        return row

    def _measured(
        self, name: str, settings: PretrainSettings, level: Level | None
    ) -> dict[str, Any]:
        out = self.folder / f"{name}.safetensors"
        shutil.rmtree(run_path(out), ignore_errors=True)  # half a run has no time
        if level is None:
            vocabulary = Trainee.of_run(self.teacher).vocabulary
            torch.manual_seed(settings.seed)
            student = Trainee.new(
                settings.config(vocabulary_size=len(vocabulary)), sorted(self.train), vocabulary
            )
            reports = pretrain(self.train, {}, out, settings, trainee=student)
        else:
            distilling = DistillSettings(level=level, pairs=PAIRS)
            reports = pretrain_taught([self.teacher], self.train, {}, out, settings, distilling)
        lessons, training = _timed(reports, settings.steps)
        return {
            "student": name,
            "steps": settings.steps,
            "CPU-s of training": training,
            "CPU-s of lessons": lessons if level else 0.0,
            "dev %": self.accuracy(Trainee.of_run(out)),
            "MB, int8": out.stat().st_size / 1e6,
        }

    def accuracy(self, trainee: Trainee) -> float:
        """Mean exact match of the tasks, in %."""
        names = [name for name in trainee.names if name in self.dev]
        return 100 * sum(trainee.dev_exact(n, self.dev[n]) for n in names) / len(self.dev)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    bench = Bench(args.folder)
    teacher = bench.teach_teacher()
    print(teacher, flush=True)

    def settings(steps: int) -> PretrainSettings:
        return PretrainSettings(steps=steps, warmup_steps=WARMUP_STEPS)

    rows = [bench.row("labels", settings(args.steps), None)]
    rows.append(bench.row("word level", settings(args.steps), "word"))
    rows.append(bench.row("sequence level", settings(args.steps), "sequence"))
    taught, plain = rows[1], rows[0]
    spent = taught["CPU-s of training"] + taught["CPU-s of lessons"]
    longer = round(args.steps * spent / plain["CPU-s of training"])
    rows.append(
        bench.row("labels, for as long as word level with its lessons", settings(longer), None)
    )
    publish(
        "distilling",
        f"python benchmarks/model/distilling.py FOLDER --steps {args.steps}",
        rows,
        f"Preset 128, {PAIRS} pairs of each of {len(bench.train)} tasks; dev: exact match on up to "
        f"{mixture.DEV_CAP} pairs a task, mean. The teacher is the shipped base with starts of these tasks, "
        f"trained on for {TEACHER.steps} steps: {teacher['dev %']:.1f} % of dev; fitting it took "
        f"{teacher['CPU-s']:.0f} CPU-seconds, not counted in any row, as is the making of the shipped base. "
        "It has seen up to 10,000 pairs a task. Sequence level: its greedy answers are the targets, and what "
        "it says of their tokens counts as at word level. One seed; CPU time of one thread, the processor "
        "shared. Teachers of 40 M parameters are not here: on two cores they cannot be trained in an hour.",
    )


def _timed(reports: Iterator[PretrainReport], steps: int) -> tuple[float, float]:
    """CPU seconds before the first step, and of all steps; the first report comes after 50 of them."""
    began = time.process_time()
    _drain(islice(reports, 1))
    first = time.process_time()
    _drain(reports)
    a_step = (time.process_time() - first) / (steps - 50)
    return max(0.0, first - began - 50 * a_step), steps * a_step


def _drain(reports: Iterator[PretrainReport]) -> None:
    for one in reports:
        print(one.step, f"loss {one.loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
