"""What consolidation of the base brings, and what it costs, against the same time for the calibrations alone.

    python benchmarks/model/consolidation.py --g2p FOLDER [--cpu-s 120] [--seeds 1,2] [--pairs 1000]

Six tasks are taught offline on the shipped base by the product's learner: the demo's four, and pronunciation
in two languages (SIGMORPHON 2021, ``FOLDER/medium/<language>_{train,dev}.tsv``).  Then, from the same
reservoirs and champions, in equal CPU-seconds: consolidation, the same of a base whose encoder is widened
first, and with the base frozen; and, with a fifth of the reservoirs, consolidation with the champions as
teachers and without.  All are judged by the product's rule on what the tasks hold out, and measured on pairs
that nothing has seen.  A task that no base has seen is taught before and after: what is left of plasticity.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import PairRow  # noqa: E402
from edgeseq_core.learn.consolidate import trained  # noqa: E402
from edgeseq_core.learn.consolidation import ConsolidationSettings, Replay  # noqa: E402
from edgeseq_core.learn.consolidation_tasks import kept_tasks  # noqa: E402
from edgeseq_core.learn.consolidation_trials import trials  # noqa: E402
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402

LANGUAGES, LATER = ("fre", "bul"), "dut"
TESTED, LATER_PAIRS = 300, 300
AT_ONCE = 64
WIDER = 768  # hidden units of the encoder's FFNs; the shipped base has 512
Pairs = list[tuple[str, str]]
Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--cpu-s", type=float, default=120)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--name", default="consolidation", help="of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = ConsolidationSettings(cpu_s=args.cpu_s)
    fewer = replace(settings, cpu_s=args.cpu_s / 3)  # for a fifth of the pairs
    arms = {
        "consolidation": (settings, 1.0),
        f"{WIDER} hidden units": (replace(settings, encoder_ffn=WIDER), 1.0),
        "base frozen": (replace(settings, base_rate=0.0), 1.0),
        "a fifth kept": (fewer, 0.2),
        "a fifth kept, labels alone": (replace(fewer, follow=0.0), 0.2),
    }
    rows = list[Row]()
    for seed in map(int, args.seeds.split(",")):
        for row in measured(args.g2p, args.pairs, arms, seed):
            print(row, flush=True)
            rows.append(row)
        publish(
            args.name,
            f"python benchmarks/model/consolidation.py --g2p FOLDER --cpu-s {args.cpu_s:g} "
            f"--seeds {args.seeds} --pairs {args.pairs}"
            + (f" --name {args.name}" if args.name != "consolidation" else ""),
            rows,
            f"Exact answers in % on {TESTED} pairs a task that nothing has seen, int8 bytes as they "
            "serve; rule: what it says of the pairs that the tasks hold out (34 to 47: one pair "
            "is 2 to 3 points), and of the base half of the way where the whole of it is refused. New task: "
            f"{LATER_PAIRS} pairs of g2p-{LATER} taught on the base afterwards. CPU-s: of training.",
        )


def measured(
    folder: Path, pairs: int, arms: dict[str, tuple[ConsolidationSettings, float]], seed: int
) -> Iterator[Row]:
    """A row a way: as taught, and what came of each arm."""
    base, learning = Base.load(), LearningSettings(seed=seed)
    learner, began = OfflineLearner(base, learning), time.process_time()
    data = {task: taught_and_tested(folder, task, pairs, seed) for task in tasks()}
    for task, (taught, _) in data.items():
        for _ in learn_pairs(learner, task, taught):
            pass
    while learner.loop.run_once() is not None:
        pass
    spent = time.process_time() - began
    kept = kept_tasks(learner.buffer, learner.registry, base, partitions=1)
    before = {one.task: right(base, one.payload, data[one.task][1]) for one in kept}
    yield row(seed, "champions", "", before, later(base, folder, seed), 0, spent)
    for name, (settings, share) in arms.items():
        few = [replace(one, replay=part(one.replay, share)) for one in kept]
        began = time.process_time()
        run = trained(few, base, replace(settings, seed=seed))
        spent = time.process_time() - began
        with tempfile.TemporaryDirectory() as where:
            for trial, made in trials(run, few, base, Path(where, "base"), learning=learning):
                payloads = {task: refit.learner.payload() for task, refit in made.refits.items()}
                found = {task: right(made.base, payloads[task], data[task][1]) for task in payloads}
                verdict = "; ".join(trial.refused) or "publish"
                first = name == "consolidation" and trial.share == 1
                after = later(made.base, folder, seed) if first else None
                how = f"{name}, {100 * trial.share:.0f} % of the way"
                yield row(seed, how, verdict, found, after, run.steps, spent)
                if not trial.refused:
                    break


def part(replay: Replay, share: float) -> Replay:
    """As if the reservoir had let the others go: its pairs are in an order that says nothing of them."""
    kept = replay.pairs[: round(share * len(replay.pairs))]
    return Replay(kept, gone=1 - share)


def row(
    seed: int,
    how: str,
    verdict: str,
    found: dict[str, float],
    later_task: float | None,
    steps: int,
    spent: float,
) -> Row:
    """One line of the table."""
    return {
        "seed": seed,
        "what serves": how,
        **{task: round(found[task], 1) for task in tasks()},
        "mean": round(statistics.mean(found.values()), 2),
        "new task": "" if later_task is None else round(later_task, 1),
        "steps": steps,
        "CPU-s": round(spent),
        "rule": verdict,
    }


def tasks() -> list[str]:
    return [*DEMO_TASKS, *(f"g2p-{language}" for language in LANGUAGES)]


def taught_and_tested(folder: Path, task: str, pairs: int, seed: int) -> tuple[Pairs, Pairs]:
    """Pairs to teach, and pairs that nothing sees."""
    if task in DEMO_TASKS:
        stream = DEMO_TASKS[task]
        taught = [(e.source, e.target) for e in islice(stream.train(seed), pairs)]
        return taught, [(e.source, e.target) for e in stream.held_out(TESTED, seed)]
    taught, tested = (
        pronounced(folder, task.removeprefix("g2p-"), part) for part in ("train", "dev")
    )
    random.Random(seed).shuffle(taught)
    return taught[:pairs], tested[:TESTED]


def pronounced(folder: Path, language: str, part: str) -> Pairs:
    lines = (folder / "medium" / f"{language}_{part}.tsv").read_text().splitlines()
    split = (line.split("\t") for line in lines)
    return [(source, target.replace(" ", "")) for source, target in split]


def later(base: Base, folder: Path, seed: int) -> float:
    """Exact answers in % of a task that is taught on a base afterwards."""
    learner, task = OfflineLearner(base, LearningSettings(seed=seed)), f"g2p-{LATER}"
    taught, tested = taught_and_tested(folder, task, LATER_PAIRS, seed)
    for _ in learn_pairs(learner, task, taught):
        pass
    return right(base, learner.payload(task) or learner.loop.identity_payload(), tested)


def right(base: Base, payload: bytes, pairs: Pairs) -> float:
    """Exact answers in %."""
    engine = TorchEngine(base)
    engine.swap("task", "task", payload)
    scores = [
        score
        for at in range(0, len(pairs), AT_ONCE)
        for score in engine.score([PairRow("task", *pair) for pair in pairs[at : at + AT_ONCE]])
    ]
    return 100 * sum(score.exact for score in scores) / len(scores)


if __name__ == "__main__":
    main()
