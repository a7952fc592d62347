"""Six tasks that the shipped base never saw: calibration against full fine-tuning and from scratch.

    python benchmarks/model/unseen.py --g2p FOLDER --histnorm FOLDER [--tasks g2p-fre,...]
        [--learners calibration,...] [--cpu-s 40] [--held-out 300] [--seed 1]

Pronunciation from SIGMORPHON 2021 (``FOLDER/medium/<language>_{train,dev}.tsv``, phones without the
blanks between them; held out: dev), Slovene in Bohorič's alphabet (``FOLDER/slovene/``; held out: words of
dev that train does not have), and Spanish verbs of the demo.  Armenian is there in place of Korean, of
which nobody learnt 2 % in an earlier table; chosen, before any run, for its script, its 8,000 pairs, and
because it is no puzzle (phonetisaurus: 8 % wrong).

Every learner reads one stream in one order.  When 100, 300, 1,000, 3,000 and 10,000 pairs have arrived
(or all, where there are fewer), it has used the same CPU-seconds (``--cpu-s`` at the last point, before it
in proportion to the root of the pairs), and answers the held-out sources.  Steps are the product's: new
pairs with as many revisited, then revisited pairs alone.  Calibration has the settings that ship, grows when
the product's would, and is scored as the int8 bytes that serve; the others, in fp32, take the best of a
grid of step sizes by their area on the held-out pairs themselves.

Rows of tasks, learners and seeds that are not run again are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus.demo import DEMO_TASKS  # noqa: E402
from edgeseq_core.engine import PairRow  # noqa: E402
from edgeseq_core.evaluate.floors import SuffixRules, accuracy, copy_source  # noqa: E402
from edgeseq_core.learn.example import Example  # noqa: E402
from edgeseq_core.learn.learner import TaskLearner  # noqa: E402
from edgeseq_core.learn.studies import settled, study_on  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.base_file import write_base  # noqa: E402
from edgeseq_core.model.batch import pad  # noqa: E402
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer  # noqa: E402
from edgeseq_core.model.source_encoder import CachingEncoder  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine, teacher_forced  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402
from edgeseq_core.text.vocabulary import BOS, EOS, FIRST_BYTE, PAD, Vocabulary  # noqa: E402

POINTS = (100, 300, 1_000, 3_000, 10_000)  # pairs
# Step sizes where all numbers are trained: from the first one, to whichever side is better.
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 4e-2)
FIRST_RATE = {"full fine-tuning": 5e-3, "from scratch": 5e-3}
TASKS = ("g2p-fre", "g2p-bul", "g2p-jpn_hira", "g2p-arm_e", "bohoric-slovene", "spanish-verbs")
LEARNERS = ("copying", "suffix rules", "calibration", "full fine-tuning", "from scratch")
RESULT = ROOT / "benchmarks" / "results" / "unseen.json"
BATCH = 64  # held-out pairs scored at once

Pairs = list[tuple[str, str]]
Row = dict[str, object]


@dataclass(frozen=True)
class Task:
    """Pairs in the order of their stream, and held-out ones."""

    name: str
    train: Pairs
    held_out: Pairs


class Learner(Protocol):
    """What is compared."""

    def step(self, fresh: Pairs, revisited: Pairs) -> None:
        """Train once on a batch."""

    def exact(self, pairs: Pairs) -> float:
        """Share of pairs answered exactly (greedy, by teacher forcing)."""

    def stored(self) -> int:
        """Bytes kept for the task."""


class Calibrated:
    """The product's learner on the frozen base."""

    def __init__(self, base: Base, task: str, settings: LearningSettings) -> None:
        settings = settled(base, settings)
        encoder = CachingEncoder(base, calibrated_layers=settings.encoder_layers)
        self.base, self.task = base, task
        self.learner = TaskLearner(base, task, settings, study_on(base, settings, encoder))

    def step(self, fresh: Pairs, revisited: Pairs) -> None:
        examples = [
            Example(source, "bulk", source, target, "pairs", at, 0, 0.0, 0.0)
            for at, (source, target) in enumerate([*fresh, *revisited])
        ]
        new = len(fresh)
        step = self.learner.progress.step + 1
        self.learner.step(step, examples[:new], [True] * new, examples[new:])

    def exact(self, pairs: Pairs) -> float:
        engine = TorchEngine(self.base)
        engine.swap(self.task, self.task, self.learner.payload())
        rows = [PairRow(self.task, source, target) for source, target in pairs]
        batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        return sum(score.exact for batch in batches for score in engine.score(batch)) / len(rows)

    def stored(self) -> int:
        return len(self.learner.payload())


class WholeModel:
    """All numbers trained, with the product's loss, schedule, gradient cap and averaging."""

    def __init__(
        self, model: EdgeFormer, vocabulary: Vocabulary, settings: LearningSettings, rate: float
    ) -> None:
        self.model, self.vocabulary, self.settings, self.rate = model, vocabulary, settings, rate
        self.parameters = list(model.requires_grad_(True).parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, betas=(0.9, 0.98), weight_decay=settings.weight_decay, foreach=True
        )
        self.steps = 0

    def step(self, fresh: Pairs, revisited: Pairs) -> None:
        settings = self.settings
        self.steps += 1
        warm = min(1.0, self.steps / settings.warmup_steps)
        late = math.sqrt(settings.decay_after_steps / max(self.steps, settings.decay_after_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm * max(settings.floor_ratio, late)
        scores, wanted = self._forced([*fresh, *revisited])
        loss = F.cross_entropy(
            scores.flatten(0, 1),
            wanted.flatten(),
            ignore_index=PAD,
            label_smoothing=settings.label_smoothing,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, settings.norm_cap)
        self.optimizer.step()
        past = min(settings.averaging, self.steps / (self.steps + 5))
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.parameters, strict=True):
                mean.lerp_(parameter, 1 - past)

    @torch.no_grad()
    def exact(self, pairs: Pairs) -> float:
        learnt = [parameter.clone() for parameter in self.parameters]
        self._put(self.average)
        batches = [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]
        right = sum(s.exact for batch in batches for s in teacher_forced(*self._forced(batch)))
        self._put(learnt)
        return right / len(pairs)

    def stored(self) -> int:
        tensors = {name: p.detach().numpy() for name, p in self.model.named_parameters()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            write_base(
                path, tensors, config=self.model.config, vocabulary=self.vocabulary, notes={}
            )
            return path.stat().st_size

    def _forced(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Teacher-forced scores and wanted tokens."""
        model, encode = self.model, self.vocabulary.encode
        source = pad([[*encode(source), EOS] for source, _ in pairs])
        target = pad([[BOS, *encode(target), EOS] for _, target in pairs])
        weights = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
        return model(source, target[:, :-1], weights), target[:, 1:]

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def fine_tuned(base: Base, task: Task, settings: LearningSettings, rate: float) -> WholeModel:
    """The base; symbols of the targets that it lacks get rows that start as in a calibration."""
    known = base.vocabulary
    new = sorted({c for _, target in task.train for c in target if c not in known})
    vocabulary = Vocabulary([*known.characters, *new])
    model = EdgeFormer(replace(base.config, vocabulary_size=len(vocabulary)))
    table = base.model.embedding
    rows = [table[[FIRST_BYTE + byte for byte in c.encode()]].mean(0) for c in new]
    state = base.model.state_dict()
    state["embedding"] = torch.cat([table, torch.stack(rows)]) if new else table
    state["vocabulary_bias"] = F.pad(base.model.vocabulary_bias, (0, len(new)))
    model.load_state_dict(state)
    return WholeModel(model, vocabulary, settings, rate)


def from_scratch(base: Base, task: Task, settings: LearningSettings, rate: float) -> WholeModel:
    """The same architecture with the task's own characters."""
    torch.manual_seed(settings.seed)
    vocabulary = Vocabulary(sorted({c for pair in task.train for text in pair for c in text}))
    model = EdgeFormer(replace(base.config, vocabulary_size=len(vocabulary)))
    return WholeModel(model, vocabulary, settings, rate)


def curve(
    learner: Learner, task: Task, points: Sequence[int], cpu_s: float, settings: LearningSettings
) -> tuple[list[float], int]:
    """Accuracy in % at each point of the stream, and how many pairs were read at the last."""
    rng, seen, used, out = random.Random(settings.seed), 0, 0.0, list[float]()
    for point in points:
        while used < cpu_s * math.sqrt(point / points[-1]):
            fresh = task.train[seen : min(point, seen + settings.fresh_per_step)]
            revisited = rng.choices(task.train[:seen], k=settings.replay_per_step) if seen else []
            began = time.process_time()
            learner.step(fresh, revisited)
            used += time.process_time() - began
            seen += len(fresh)
        out.append(100 * learner.exact(task.held_out))
    return out, seen


def area(points: Sequence[int], accuracies: Sequence[float]) -> float:
    """Mean accuracy over the logarithm of the pairs.

    >>> area([1, 10, 100], [0, 50, 100])
    50.0
    """
    logs = [math.log(point) for point in points]
    pieces = zip(logs, logs[1:], accuracies, accuracies[1:], strict=False)
    return sum((b - a) * (y + z) / 2 for a, b, y, z in pieces) / (logs[-1] - logs[0])


class Measured:
    """The rows of a task and a seed, one a learner."""

    def __init__(self, base: Base, task: Task, cpu_s: float, settings: LearningSettings) -> None:
        self.base, self.task, self.cpu_s, self.settings = base, task, cpu_s, settings
        self.points = [point for point in POINTS if point < len(task.train)]
        self.points.append(len(task.train))

    def row(self, learner: str) -> Row:
        """What a learner reached; LEARNERS names them."""
        if learner == "calibration":
            return self._calibration()
        if learner in FIRST_RATE:
            return best(partial(self._whole, learner), FIRST_RATE[learner])
        return self._floor(learner)

    def _floor(self, learner: str) -> Row:
        sources, targets = zip(*self.task.held_out, strict=True)
        rules, reached, read = SuffixRules(), list[float](), 0
        for point in self.points:
            rules.learn_many(self.task.train[read:point])
            read = point
            answer = copy_source if learner == "copying" else rules.predict_one
            reached.append(100 * accuracy(map(answer, sources), targets))
        return self._row(learner, reached)

    def _calibration(self) -> Row:
        own, rate = (
            Calibrated(self.base, self.task.name, self.settings),
            self.settings.learning_rate,
        )
        reached, read = self._curve(own)
        steps = own.learner.progress.step
        return self._row("calibration", reached, rate, steps, read, own.stored() / 1024)

    def _whole(self, learner: str, rate: float) -> Row:
        make = {"full fine-tuning": fine_tuned, "from scratch": from_scratch}[learner]
        whole = make(self.base, self.task, self.settings, rate)
        reached, read = self._curve(whole)
        return self._row(learner, reached, rate, whole.steps, read, whole.stored() / 1024)

    def _curve(self, learner: Learner) -> tuple[list[float], int]:
        return curve(learner, self.task, self.points, self.cpu_s, self.settings)

    def _row(self, learner: str, reached: Sequence[float], *spent: float) -> Row:
        at = dict(zip(POINTS, reached, strict=False))
        names = ("step size", "steps", "read", "KiB")
        row: Row = {"task": self.task.name, "learner": learner, "seed": self.settings.seed}
        row |= {f"{point:,}": at.get(point, "") for point in POINTS}
        row |= {"area": area(self.points, reached)}
        row |= dict(zip(names, spent or [""] * len(names), strict=True))
        print(row, flush=True)
        return row


def best(run: Callable[[float], Row], first: float) -> Row:
    """The run of the best step size by area: its neighbours in the grid, if there are any, are worse."""
    at, tried = RATES.index(first), dict[int, Row]()

    def reached(place: int) -> float:
        if place not in range(len(RATES)):
            return -1.0
        if place not in tried:
            tried[place] = run(RATES[place])
        return float(str(tried[place]["area"]))

    for way in (1, -1):
        while reached(at + way) > reached(at):
            at += way
    return tried[at]


def data(name: str, args: argparse.Namespace) -> Task:
    """A task by its name."""
    if name == "bohoric-slovene":
        train, tested = histnorm(args.histnorm)
    elif name == "spanish-verbs":
        train, tested = spanish(POINTS[-1], args.held_out, args.seed)
    else:
        train, tested = g2p(args.g2p, name.removeprefix("g2p-"))
    random.Random(args.seed).shuffle(train)
    random.Random(args.seed).shuffle(tested)
    return Task(name, train[: POINTS[-1]], tested[: args.held_out])


def g2p(folder: Path, language: str) -> tuple[Pairs, Pairs]:
    """Training and dev pairs, written word to phones without blanks."""
    parts = (folder / "medium" / f"{language}_{part}.tsv" for part in ("train", "dev"))
    train, dev = ([(s, t.replace(" ", "")) for s, t in table(path)] for path in parts)
    return train, dev


def histnorm(folder: Path) -> tuple[Pairs, Pairs]:
    """Each old word once, with the first modern form it has; dev words that train has are left out."""
    parts = (
        folder / "slovene" / f"slovene-goo300k-bohoric.{part}.txt" for part in ("train", "dev")
    )
    train, dev = ({s: t for s, t in reversed(table(path)) if s.isalpha()} for path in parts)
    return list(train.items()), [pair for pair in dev.items() if pair[0] not in train]


def spanish(pairs: int, held_out: int, seed: int) -> tuple[Pairs, Pairs]:
    """The demo's verbs."""
    task = DEMO_TASKS["spanish-verbs"]
    train, tested = islice(task.train(seed), pairs), task.held_out(held_out, seed)
    return [(e.source, e.target) for e in train], [(e.source, e.target) for e in tested]


def table(path: Path) -> Pairs:
    """The rows of a file of two columns."""
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return [(row[0], row[1]) for row in rows if len(row) == 2 and all(row)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--histnorm", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--learners", default=",".join(LEARNERS))
    parser.add_argument("--cpu-s", type=float, default=40)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, settings = Base.load(), LearningSettings(seed=args.seed)
    tasks = [data(name, args) for name in args.tasks.split(",")]
    warm_up = Calibrated(base, "warm-up", settings)  # torch's first call is slow
    warm_up.step(tasks[0].train[:32], [])
    command = (
        f"python benchmarks/model/unseen.py --g2p FOLDER --histnorm FOLDER --cpu-s {args.cpu_s:g} "
        f"--held-out {args.held_out} --seed N"
    )
    for task in tasks:
        measured = Measured(base, task, args.cpu_s, settings)
        for learner in args.learners.split(","):
            rows = keep(measured.row(learner))
            publish("unseen", command, rows, notes(rows, args.cpu_s))  # so far


def keep(row: Row) -> list[Row]:
    """All rows so far, this one in place of an older one of its task, learner and seed."""

    def place(row: Row) -> tuple[int, int, int]:
        task, learner, seed = (str(row[name]) for name in ("task", "learner", "seed"))
        return TASKS.index(task), LEARNERS.index(learner), int(seed)

    old: list[Row] = json.loads(RESULT.read_text()) if RESULT.exists() else []
    rows = {place(one): one for one in [*old, row]}
    return [rows[at] for at in sorted(rows)]


def notes(rows: Sequence[Row], cpu_s: float) -> str:
    """What the table says against full fine-tuning."""
    areas = defaultdict[tuple[str, str], list[float]](list)
    for row in rows:
        areas[str(row["task"]), str(row["learner"])].append(float(str(row["area"])))
    tasks = dict.fromkeys(task for task, _ in areas)
    ratios = {
        task: fmean(areas[task, "calibration"]) / fmean(areas[task, "full fine-tuning"])
        for task in tasks
        if areas[task, "calibration"] and areas[task, "full fine-tuning"]
    }
    said = ", ".join(f"{task} {ratio:.2f}" for task, ratio in ratios.items())
    lines = [
        "Accuracy: exact match on held-out pairs, in %, after so many pairs; where a task has fewer than "
        f"10,000 (pronunciation: 8,000), the last column is after all of them. {cpu_s:g} CPU-seconds of "
        "training a run at the last point. Read: pairs seen by then; where the seconds were too few, "
        "later pairs were never read. Area: mean accuracy over log(pairs). KiB: int8, stored for the "
        "task. All have the warm-up, decay and averaging that ship.",
    ]
    if ratios:
        lines.append(
            f"Area of calibration / full fine-tuning, seeds together: {said}; mean "
            f"{sum(ratios.values()) / len(ratios):.3f}, worst {min(ratios.values()):.2f} (wanted: 1.0 "
            "and 0.9)."
        )
    for name in FIRST_RATE:
        chosen = Counter(float(str(row["step size"])) for row in rows if row["learner"] == name)
        picked = ", ".join(f"{rate:g} on {count}" for rate, count in sorted(chosen.items()))
        lines.append(
            f"{name.capitalize()}: the step size of each run that is better than its neighbours in the "
            f"grid ({', '.join(f'{rate:g}' for rate in RATES)}), by its area on the held-out pairs "
            f"themselves, which favours it: {picked}."
        )
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
