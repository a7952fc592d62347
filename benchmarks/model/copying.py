"""What a copy path is worth: bases with and without it, trained alike for equal CPU-seconds.

    python benchmarks/model/copying.py [--cpu-s 60] [--seeds 1]

Preset 128 on a small mixture of the base's own tasks (extra `pretrain`), no source longer than
`TRAINED` characters; the step size falls by a cosine as the time runs out.  All that is scored are
int8 bases, answering greedily with the task's own tokens.

A third base also learns to copy strings of random characters (`strings`), no longer than the words.

The canary: strings of random characters that the task `copy` has had, up to four times as long as any
string that was copied in training.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from answer_time import answer_ms  # noqa: E402
from report import publish  # noqa: E402

from edgeseq_core.corpus.base import BASE_TASKS  # noqa: E402
from edgeseq_core.corpus.mixture import CAP, split  # noqa: E402
from edgeseq_core.engine import Limits, SourceRow  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.calibration import Calibration, CalibrationConfig  # noqa: E402
from edgeseq_core.model.pretrain import PretrainSettings, Training, build_vocabulary  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.model.trainee import Trainee  # noqa: E402

TRAINED = 12  # characters of the longest source
CANARY = 200  # strings of each length
STRINGS = 10_000  # to learn to copy
BASES: Sequence[tuple[Literal["vocabulary", "copy"], bool]] = (  # output, and whether with strings
    ("vocabulary", False),
    ("copy", False),
    ("copy", True),
)
KINDS: Mapping[str, Sequence[str]] = {
    "spelling": ("accents-fr", "accents-pt", "accents-removed", "british-to-american"),
    "denoising": ("denoise-latin", "denoise-cyrillic"),
    "G2P": ("g2p-english-us", "g2p-german"),
    "lemmas": ("lemma-fr", "lemma-ru"),
    "copy": ("copy",),
}

Pairs = list[tuple[str, str]]


class Timed(Training):
    """A training whose step size falls as its time runs out."""

    done = 0.0  # share of the time

    @property
    def learning_rate(self) -> float:
        warm = min(1.0, self.step / self.settings.warmup_steps)
        half_cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.done)))
        return self.settings.peak_learning_rate * warm * max(0.02, half_cosine)


def trained(train: Mapping[str, Pairs], settings: PretrainSettings, cpu_s: float) -> Timed:
    """A base in the making after so many CPU-seconds."""
    torch.manual_seed(settings.seed)
    vocabulary = build_vocabulary(train, settings)
    config = settings.config(vocabulary_size=len(vocabulary))
    run, used = Timed(Trainee.new(config, sorted(train), vocabulary), train, settings), 0.0
    while used < cpu_s:
        began = time.process_time()
        run.advance(window=50)
        used += time.process_time() - began
        run.done = used / cpu_s
    return run


def frozen(run: Timed, path: Path) -> tuple[Base, TorchEngine]:
    """The int8 base in an engine that serves each task by its own tokens and vector."""
    run.trainee.write(path, {})
    base = Base.load(path)
    engine = TorchEngine(base)
    for at, name in enumerate(run.trainee.names):
        own = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=1, encoder_layers=0))
        own.tensors["token"] = run.trainee.starts.tokens[at].detach().clone()
        own.tensors["vector"] = run.trainee.starts.vectors[at].detach().clone()
        engine.swap(name, name, own.to_payload(base.digest))
    return base, engine


def exact(engine: TorchEngine, task: str, pairs: Pairs) -> float:
    """Share of pairs answered exactly, in %."""
    right = 0
    for at in range(0, len(pairs), 50):
        some = pairs[at : at + 50]
        made = engine.generate([SourceRow(task, s) for s, _ in some], Limits(max_tokens=128))
        right += sum(one.target == target for one, (_, target) in zip(made, some, strict=True))
    return 100 * right / len(pairs)


def strings(train: Mapping[str, Pairs], lengths: range, count: int) -> Pairs:
    """Random strings over small and large parts of the copied characters: many repeat themselves."""
    rng = random.Random(f"{lengths}")
    counts = Counter(character for source, _ in train["copy"] for character in source)
    letters = sorted(character for character, n in counts.items() if n >= 20)
    out = []
    for _ in range(count):
        some = rng.sample(letters, rng.choice([3, 10, 60]))
        text = "".join(rng.choices(some, k=rng.choice(lengths)))
        out.append((text, text))
    return out


def measured(
    settings: PretrainSettings,
    with_strings: bool,
    train: Mapping[str, Pairs],
    dev: Mapping[str, Pairs],
    cpu_s: float,
) -> tuple[dict[str, object], Base]:
    """One row of the table, and the base."""
    more = {"strings": strings(train, range(1, TRAINED + 1), STRINGS)} if with_strings else {}
    run = trained({**train, **more}, settings, cpu_s)
    with tempfile.TemporaryDirectory() as folder:
        base, engine = frozen(run, Path(folder) / "base.safetensors")
    row: dict[str, object] = {
        "output": settings.output,
        "strings": "yes" if with_strings else "no",
        "seed": settings.seed,
        "steps": run.step,
    }
    for times in (1, 2, 3, 4):
        row[f"canary {times}x"] = exact(
            engine, "copy", strings(train, range(times * TRAINED, times * TRAINED + 1), CANARY)
        )
    for kind, tasks in KINDS.items():
        row[kind] = sum(exact(engine, name, dev[name]) for name in tasks) / len(tasks)
    row["numbers"] = base.config.parameters
    print(row, flush=True)
    return row, base


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu-s", type=float, default=60)
    parser.add_argument("--seeds", default="1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, dev = dict[str, Pairs](), dict[str, Pairs]()
    for name in (name for tasks in KINDS.values() for name in tasks):
        pairs, tested = split(BASE_TASKS[name], 1, CAP)
        train[name] = [pair for pair in pairs if len(pair[0]) <= TRAINED]
        dev[name] = [pair for pair in tested if len(pair[0]) <= TRAINED][:100]
    rows, bases = [], dict[str, Base]()
    for seed in map(int, args.seeds.split(",")):
        for output, with_strings in BASES:
            settings = PretrainSettings(output=output, seed=seed, warmup_steps=100)
            row, bases[output] = measured(settings, with_strings, train, dev, args.cpu_s)
            rows.append(row)
    took = answer_ms({output: base.model for output, base in bases.items()}, 1)
    publish(
        "copying",
        f"python benchmarks/model/copying.py --cpu-s {args.cpu_s:g} --seeds {args.seeds}",
        [row | {"answer (ms)": round(took[str(row["output"])], 1)} for row in rows],
        f"Preset 128, {args.cpu_s:g} CPU-seconds of training on one thread, int8, greedy. Canary: exact "
        f"copies, in %, of {CANARY} random strings 1 to 4 times {TRAINED} characters long, the longest "
        "that was copied in training. Strings: whether training copied random strings too. The kinds of "
        "task: exact dev answers, in %, at most 100 a task. "
        "Answer: 16 tokens in PyTorch, CPU time.",
    )


if __name__ == "__main__":
    main()
