"""Padding and speed of pretraining batches, against sorted pools of 16 batches of 64 pairs.

``python benchmarks/model/batches.py [--steps N]`` trains both from the same weights, in turns, on one
thread, for about the same time.  It also keeps the lengths it drew, for the test of padding.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.corpus import mixture  # noqa: E402
from edgeseq_core.model import pretrain as module  # noqa: E402
from edgeseq_core.model.batch import pad  # noqa: E402
from edgeseq_core.model.mixture_batches import Batch  # noqa: E402
from edgeseq_core.model.pretrain import PretrainSettings, Training, build_vocabulary  # noqa: E402
from edgeseq_core.model.trainee import Trainee  # noqa: E402
from edgeseq_core.text.vocabulary import BOS, EOS, PAD  # noqa: E402

LENGTHS = ROOT / "tests" / "model" / "mixture_lengths.json"
ROUNDS = 8
STEPS_RATIO = 1.6
COUNTED_BATCHES = 1_024


def sorted_pools(
    pairs: dict[str, Any], vocabulary: Any, settings: PretrainSettings
) -> Iterator[Batch]:
    """What was there before: 16 batches drawn, sorted by the sum of lengths, cut every 64 pairs."""
    rng, names = random.Random(settings.seed), sorted(pairs)
    shares = [len(pairs[name]) ** settings.size_exponent for name in names]
    while True:
        pool = []
        for task in rng.choices(range(len(names)), shares, k=16 * settings.batch):
            source, target = rng.choice(pairs[names[task]])
            ids = [*vocabulary.encode(source), EOS]
            pool.append((ids, [BOS, *vocabulary.encode(target), EOS], task))
        pool.sort(key=lambda row: (len(row[0]) + len(row[1]), len(row[0])))
        cuts = list(range(0, len(pool), settings.batch))
        rng.shuffle(cuts)
        for at in cuts:
            sources, targets, tasks = zip(*pool[at : at + settings.batch], strict=True)
            source = pad(sources)
            yield Batch(source, source, pad(targets), torch.tensor(tasks), [])


def padding(batches: Iterator[Batch]) -> tuple[float, float, Counter[tuple[int, int]]]:
    """Shares of padding in sources and in target tokens that are predicted; lengths met."""
    real, all_ = [0, 0], [0, 0]
    lengths: Counter[tuple[int, int]] = Counter()
    for batch in (next(batches) for _ in range(COUNTED_BATCHES)):
        for at, tokens in enumerate((batch.source, batch.target[:, 1:])):
            real[at] += int((tokens != PAD).sum())
            all_[at] += tokens.numel()
        of_row = ((batch.source != PAD).sum(1).tolist(), (batch.target != PAD).sum(1).tolist())
        lengths.update(zip(*of_row, strict=True))
    return 1 - real[0] / all_[0], 1 - real[1] / all_[1], lengths


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    # The new batches get more steps: about as many as they take in the same time.
    planned = {"sorted pools": steps, "token budget": round(STEPS_RATIO * steps)}
    parts = {"sorted pools": 1, "token budget": module.STEP_BATCHES}
    loaded = mixture.load(1)
    runs: dict[str, Training] = {}
    for name, of_run in planned.items():
        settings = PretrainSettings(steps=of_run, warmup_steps=of_run // 10, byte_dropout=0.0)
        vocabulary = build_vocabulary(loaded.train, settings)
        config = settings.config(vocabulary_size=len(vocabulary))
        torch.manual_seed(settings.seed)
        trainee = Trainee.new(config, sorted(loaded.train), vocabulary)
        runs[name] = Training(trainee, loaded.train, settings)
    runs["sorted pools"].batches = sorted_pools(loaded.train, vocabulary, settings)  # type: ignore[assignment]
    padded = {name: padding(iter(run.batches)) for name, run in runs.items()}
    kept = sorted((*lengths, n) for lengths, n in padded["token budget"][2].items())
    LENGTHS.write_text("[" + ",\n".join(map(json.dumps, kept)) + "]\n")
    pairs, seconds = dict.fromkeys(runs, 0), dict.fromkeys(runs, 0.0)
    for turn in range(ROUNDS):
        for name, run in runs.items():
            module.STEP_BATCHES = parts[name]
            began = time.perf_counter()
            while run.step < planned[name] * (turn + 1) // ROUNDS:
                pairs[name] += run.advance(window=50)
            seconds[name] += time.perf_counter() - began
    rates = {name: pairs[name] / seconds[name] for name in runs}
    rows = [
        {
            "batches": name,
            "padding, source %": 100 * padded[name][0],
            "padding, target %": 100 * padded[name][1],
            "steps": run.step,
            "seconds": round(seconds[name]),
            "steps/s": run.step / seconds[name],
            "pairs/s": round(rates[name]),
            "ratio": rates[name] / rates["sorted pools"],
            "dev accuracy %": 100 * (module._dev_accuracy(run.trainee, loaded.dev) or 0),
        }
        for name, run in runs.items()
    ]
    publish(
        "pretraining-batches",
        f"python benchmarks/model/batches.py --steps {steps}",
        rows,
        f"Preset 128, one thread, in {ROUNDS} turns; ratio: of pairs a second. Dev accuracy after about "
        f"equal time, {module.DEV_SAMPLE} pairs a task. Sorted pools took one batch of 64 pairs a step, "
        f"the token budget {parts['token budget']} of about {64 // parts['token budget']}.",
    )


if __name__ == "__main__":
    main()
