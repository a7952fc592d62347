"""What the depth of a calibration gives and costs, and whether a task grows when it needs it.

    python benchmarks/model/growth.py --g2p FOLDER [--tasks dates,g2p-fre,...]
        [--calibrations growing,shallow,deep] [--held-out 300] [--seed 1]

The demo's tasks, and pronunciation from SIGMORPHON 2021 (``FOLDER/medium/<language>_{train,dev}.tsv``; held
out: dev).  Every learner reads one stream in the product's steps: 32 new pairs with 32 revisited, then two
rehearsals of 32 revisited.  So all take the same steps, and their CPU-seconds differ.  What answers the
held-out sources are the int8 bytes that would serve.  Rows that are not run again are kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import PairRow  # noqa: E402
from edgeseq_core.learn.example import Example  # noqa: E402
from edgeseq_core.learn.learner import StepReport, TaskLearner  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.source_encoder import CachingEncoder  # noqa: E402
from edgeseq_core.model.study import TorchStudy  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402

TASKS = [*DEMO_TASKS, "g2p-fre", "g2p-jpn_hira"]
CALIBRATIONS = ["growing", "shallow", "deep"]
RESULT = ROOT / "benchmarks" / "results" / "growth.json"
POINTS = (300, 1_000, 1_500)  # pairs
BATCH = 64  # held-out pairs scored at once

Pair = tuple[str, str]
Pairs = list[Pair]
Row = dict[str, object]


def variants(base: Base, seed: int) -> dict[str, LearningSettings]:
    """What is compared; growing is the product's default, and at plateaus as well."""
    deep = base.config.encoder_layers
    return {
        "growing": LearningSettings(seed=seed, growth_least_gain=0.25),
        "shallow": LearningSettings(seed=seed, growth_below_exact=0),
        "deep": LearningSettings(seed=seed, encoder_layers=deep),
    }


def measured(
    base: Base, task: str, pairs: tuple[Pairs, Pairs], name: str, settings: LearningSettings
) -> Row:
    """One learner over a task's stream: one row of the table."""
    train, held_out = pairs
    study = TorchStudy(base, CachingEncoder(base, calibrated_layers=settings.encoder_layers))
    learner = TaskLearner(base, task, settings, study)
    draw, seen, used, grown_at = random.Random(settings.seed), 0, 0.0, ""
    row: Row = {"task": task, "calibration": name}
    for point in POINTS:
        right, first = 0, seen
        while seen < point:
            fresh = train[seen : min(seen + settings.fresh_per_step, point)]
            for new in (fresh, *[()] * settings.rehearsals_per_step):
                known = train[:seen] or fresh
                replay = draw.choices(known, k=settings.replay_per_step)
                began = time.process_time()
                report = step(learner, new, replay)
                used += time.process_time() - began
                right += sum(score.exact for score in report.scores)
                grown_at = grown_at or (f"{seen:,}" if report.grown else "")
                seen += len(new)
        row[f"{point:,}"] = 100 * exact(base, learner, held_out)
    row |= {
        "prequential": 100 * right / (seen - first),
        "grown at": grown_at,
        "layers": learner.calibration.config.encoder_layers,
        "% of base": 100 * learner.calibration.share_of_base,
        "KiB": len(learner.payload()) / 1024,
        "checkpoint KiB": len(learner.to_checkpoint()) / 1024,
        "steps": learner.progress.step,
        "CPU-s": used,
    }
    print(row, flush=True)
    return row


def step(learner: TaskLearner, fresh: Sequence[Pair], replay: Sequence[Pair]) -> StepReport:
    """The next step, on new and on revisited pairs."""
    examples = [
        Example(source, "bulk", source, target, "pairs", at, 0, 0.0, 0.0)
        for at, (source, target) in enumerate([*fresh, *replay])
    ]
    new = len(fresh)
    return learner.step(learner.progress.step + 1, examples[:new], [True] * new, examples[new:])


def exact(base: Base, learner: TaskLearner, pairs: Pairs) -> float:
    """Share of pairs that the int8 bytes answer exactly (greedy, by teacher forcing)."""
    engine = TorchEngine(base)
    engine.swap(learner.task, learner.task, learner.payload())
    rows = [PairRow(learner.task, source, target) for source, target in pairs]
    batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    return sum(score.exact for batch in batches for score in engine.score(batch)) / len(rows)


def stream(task: str, folder: Path, held_out: int, seed: int) -> tuple[Pairs, Pairs]:
    """Pairs to learn in the order of their stream, and held-out ones; phones without blanks between them."""
    if task in DEMO_TASKS:
        found = DEMO_TASKS[task]
        examples = itertools.islice(found.train(seed), POINTS[-1]), found.held_out(held_out, seed)
        train, tested = ([(e.source, e.target) for e in part] for part in examples)
        return train, tested
    parts: list[Pairs] = []
    for part, size in (("train", POINTS[-1]), ("dev", held_out)):
        path = folder / "medium" / f"{task.removeprefix('g2p-')}_{part}.tsv"
        rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
        random.Random(seed).shuffle(rows)
        parts.append([(source, target.replace(" ", "")) for source, target in rows[:size]])
    return parts[0], parts[1]


def keep(new: Row) -> list[Row]:
    """All rows so far, this one in place of an older one."""
    old: list[Row] = json.loads(RESULT.read_text()) if RESULT.exists() else []
    rows = {(row["task"], row["calibration"]): row for row in [*old, new]}
    order = itertools.product(TASKS, CALIBRATIONS)
    return [rows[place] for place in order if place in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--calibrations", default=",".join(CALIBRATIONS))
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    wanted = args.tasks.split(",")
    if unknown := set(wanted) - set(TASKS):
        parser.error(f"no such tasks: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    base, size, seed = Base.load(), args.held_out, args.seed
    study = TorchStudy(base, CachingEncoder(base, calibrated_layers=1))
    warm_up = TaskLearner(base, "warm-up", LearningSettings(), study)
    step(warm_up, [("torch's first call", "is slow")], [])
    notes = (
        f"Accuracy: exact match on {size} held-out pairs, in %, after so many pairs. Prequential: the same "
        f"on the last {POINTS[-1] - POINTS[-2]} pairs of the stream, before each was learnt. Grown at: pairs "
        "read when the calibration grew. KiB: int8, as it serves; checkpoint: what the learner stores with "
        "every step. One seed: read an accuracy to 2 or 3 points."
    )
    for task in wanted:
        pairs = stream(task, args.g2p, size, seed)
        for name, settings in variants(base, seed).items():
            if name in args.calibrations.split(","):
                rows = keep(measured(base, task, pairs, name, settings))
                publish("growth", "python benchmarks/model/growth.py --g2p FOLDER", rows, notes)


if __name__ == "__main__":
    main()
