"""How often a request that names no task is given to the right one, on held-out sources.

    python benchmarks/model/task_inference.py --g2p FOLDER --histnorm FOLDER [--pairs 300]
        [--held-out 500] [--seed 2]

Six tasks are taught offline on the shipped base, on one thread, and served by one engine: the four of the
demo, and two whose sources are bare words, French (SIGMORPHON 2021, ``FOLDER/medium``) and Slovene in
Bohorič's alphabet (``FOLDER/slovene``).  The engine is then asked for the task of held-out sources of each,
and of strangers: sources of tasks that were never taught, of which it should answer none.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks/model")]

from report import publish  # noqa: E402
from unseen import g2p, histnorm  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import Inferred  # noqa: E402
from edgeseq_core.evaluate.confidence import expected_calibration_error  # noqa: E402
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402

BATCH = 50  # sources inferred at once
STRANGERS = ("bul", "kor", "hun")  # languages of words that no task was taught

Pairs = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--histnorm", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks = dict(demo(args.pairs, args.held_out, args.seed))
    tasks["g2p-fre"] = g2p(args.g2p, "fre")
    tasks["bohoric-slovene"] = histnorm(args.histnorm)
    strangers = {f"words-{name}": g2p(args.g2p, name)[1] for name in STRANGERS}
    for pairs in (*(part for parts in tasks.values() for part in parts), *strangers.values()):
        random.Random(args.seed).shuffle(pairs)
    base = Base.load()
    engine = TorchEngine(base)
    for task, (train, _) in tasks.items():
        engine.swap(task, task, taught(base, task, train[: args.pairs], args.seed))
    wanted = {name: tested for name, (_, tested) in tasks.items()} | strangers
    found = {
        name: list(inferred(engine, [source for source, _ in tested[: args.held_out]]))
        for name, tested in wanted.items()
    }
    rows = [row(name, answers, taught=name in tasks) for name, answers in found.items()]
    publish(
        "task-inference",
        f"python benchmarks/model/task_inference.py --g2p FOLDER --histnorm FOLDER "
        f"--pairs {args.pairs} --held-out {args.held_out} --seed {args.seed}",
        rows,
        notes(rows, {name: answers for name, answers in found.items() if name in tasks}),
    )


def demo(pairs: int, held_out: int, seed: int) -> Iterator[tuple[str, tuple[Pairs, Pairs]]]:
    """Pairs of the demo tasks to teach, and held-out ones."""
    for name, task in DEMO_TASKS.items():
        train = [(e.source, e.target) for e in islice(task.train(seed), pairs)]
        yield name, (train, [(e.source, e.target) for e in task.held_out(held_out, seed)])


def taught(base: Base, task: str, pairs: Pairs, seed: int) -> bytes:
    """The champion's bytes after all pairs."""
    learner = OfflineLearner(base, LearningSettings(seed=seed))
    for _ in learn_pairs(learner, task, pairs):
        pass
    payload = learner.payload(task)
    if payload is None:
        raise SystemExit(f"no snapshot of {task} passed the gate: teach more pairs")
    return payload


def inferred(engine: TorchEngine, sources: Sequence[str]) -> Iterator[Inferred]:
    """The task of each source, as the predictor asks for it."""
    for at in range(0, len(sources), BATCH):
        yield from engine.infer(sources[at : at + BATCH])


def row(name: str, answers: Sequence[Inferred], *, taught: bool) -> dict[str, object]:
    """A task's line; a stranger has no right task."""
    named = [one.task for one in answers if one.task is not None]
    wrong = [task for task in named if task != name]
    most = max(set(wrong), key=wrong.count, default="")
    sure = [one.confidence for one in answers if one.task is not None]

    def share(count: int) -> float:
        return 100 * count / len(answers)

    return {
        "sources of": name,
        "taught": "yes" if taught else "no",
        "held out": len(answers),
        "right": share(len(named) - len(wrong)) if taught else "",
        "wrong": share(len(wrong)),
        "abstained": share(len(answers) - len(named)),
        "wrong, most": f"{most} ({share(wrong.count(most)):.3g})" if wrong else "",
        "sure": 100 * sum(sure) / len(sure) if sure else "",
    }


def notes(rows: Sequence[dict[str, object]], found: dict[str, list[Inferred]]) -> str:
    """What the table says, and whether the confidence can be trusted."""
    known = [row for row in rows if row["taught"] == "yes"]

    def mean(column: str) -> float:
        return sum(float(str(row[column])) for row in known) / len(known)

    named = [
        (one.confidence, one.task == name)
        for name, some in found.items()
        for one in some
        if one.task
    ]
    error = expected_calibration_error([sure for sure, _ in named], [right for _, right in named])
    return (
        "Right, wrong, abstained: in % of the held-out sources. Sure: mean confidence of the tasks that "
        "were named. Not taught: words of languages that no task has, where every named task is wrong.\n\n"
        f"Mean of the taught tasks: right {mean('right'):.1f}, wrong {mean('wrong'):.1f}, abstained "
        f"{mean('abstained'):.1f}. Expected calibration error of the confidence on them: "
        f"{100 * error:.1f} points.\n\n"
        "The features and constants of the rule were chosen on these tasks and strangers with seed 1 "
        "(edgeseq_core/model/task_space.py), and some sources are in both draws: others may do "
        "worse. A stranger that reads like a task's own sources, as Hungarian words do like Slovene and "
        "French ones, is often taken for one of them."
    )


if __name__ == "__main__":
    main()
