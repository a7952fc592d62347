"""Make a base: train an EdgeFormer on many real tasks, then freeze it as int8.

While it trains each task has only task tokens and a task vector of its own; the encoder is
task-agnostic.  What a new task starts from is the mean of them.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core import __version__
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.batch import pad
from edgeseq_core.model.config import ModelConfig, preset
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.text.vocabulary import BOS, EOS, FIRST_BYTE, PAD, Vocabulary

Pairs = Sequence[tuple[str, str]]

SAVE_EVERY_STEPS = 1_000  # the base so far is written, so that a long run can be tried early


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How long and how a base is trained."""

    preset: str = "128"
    steps: int = 14_000
    batch: int = 64  # pairs
    learning_rate: float = 2e-3
    warmup_steps: int = 400
    final_ratio: float = 0.02  # of the learning rate, at the last step
    label_smoothing: float = 0.05
    byte_dropout: float = 0.02  # share of sources of which some characters are spelt as bytes
    size_exponent: float = 0.5  # a task is drawn with probability ~ pairs ** size_exponent
    max_characters: int = 1_000
    min_count: int = 20
    seed: int = 1
    threads: int = 1


@dataclass(frozen=True)
class PretrainReport:
    """Progress of a run: yielded every ``report_every`` steps, and once at the end with dev scores."""

    step: int
    loss: float
    seconds: float
    dev_exact: Mapping[str, float] | None = None


class TaskStarts(nn.Module):
    """Task tokens ``[T, K, D]`` and vectors ``[T, D]`` of the tasks a base is trained on."""

    def __init__(self, tasks: int, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tasks, config.task_tokens, config.d_model) * 0.02)
        self.vectors = nn.Parameter(torch.zeros(tasks, config.d_model))

    def weights(self, model: EdgeFormer, index: Tensor) -> BaseWeights:
        return BaseWeights(model, self.tokens[index], self.vectors[index][:, None])


def pretrain(
    train: Mapping[str, Pairs],
    dev: Mapping[str, Pairs],
    out: Path,
    settings: PretrainSettings,
    *,
    report_every: int = 200,
) -> Iterator[PretrainReport]:
    """Train a base on ``train`` and write it to ``out``; the last report has exact match on ``dev``."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    vocabulary = build_vocabulary(train, settings)
    config = preset(settings.preset, vocabulary_size=len(vocabulary))
    model, names = EdgeFormer(config), sorted(train)
    starts = TaskStarts(len(names), config)
    parameters = [*model.parameters(), *starts.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    began, running = time.monotonic(), 0.0
    batches = _batches(train, names, vocabulary, settings, rng)
    for step in range(1, settings.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        source, symbols, target, index = next(batches)
        logits = model(source, target[:, :-1], starts.weights(model, index), symbols)
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            target[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=settings.label_smoothing,
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        running += (loss.item() - running) / min(step, report_every)
        if step % report_every == 0 and step < settings.steps:
            yield PretrainReport(step, running, time.monotonic() - began)
        if step % SAVE_EVERY_STEPS == 0 and step < settings.steps:
            _write(out, model, starts, vocabulary, {"settings": asdict(settings), "step": step})
    seconds = time.monotonic() - began
    exact = {
        name: dev_exact(model, starts, at, dev[name], vocabulary)
        for at, name in enumerate(names)
        if dev.get(name)
    }
    notes = {
        "version": __version__,
        "settings": asdict(settings),
        "tasks": {name: len(train[name]) for name in names},
        "dev_exact": exact,
        "seconds": round(seconds),
    }
    _write(out, model, starts, vocabulary, notes)
    yield PretrainReport(settings.steps, running, seconds, exact)


def _write(
    out: Path,
    model: EdgeFormer,
    starts: TaskStarts,
    vocabulary: Vocabulary,
    notes: Mapping[str, Any],
) -> None:
    """The base so far; a new task starts from the mean of the tasks' tokens and vectors."""
    with torch.no_grad():
        model.task_tokens.copy_(starts.tokens.mean(0))
        model.task_vector.copy_(starts.vectors.mean(0))
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    write_base(out, tensors, config=model.config, vocabulary=vocabulary, notes=notes)


def build_vocabulary(train: Mapping[str, Pairs], settings: PretrainSettings) -> Vocabulary:
    """The most frequent characters of all tasks; rarer ones are spelt as bytes."""
    counts: Counter[str] = Counter()
    for pairs in train.values():
        for source, target in pairs:
            counts.update(source)
            counts.update(target)
    for code in range(0x20, 0x7F):  # printable ASCII is always known
        counts[chr(code)] += 1 << 40
    kept = [c for c, n in counts.most_common(settings.max_characters) if n >= settings.min_count]
    return Vocabulary(sorted(kept))


@torch.no_grad()
def dev_exact(
    model: EdgeFormer, starts: TaskStarts, task: int, pairs: Pairs, vocabulary: Vocabulary
) -> float:
    """Share of pairs whose every next token is right under teacher forcing (= greedy exact match)."""
    right = 0
    for at in range(0, len(pairs), 256):
        chunk = pairs[at : at + 256]
        source = pad([[*vocabulary.encode(s), EOS] for s, _ in chunk])
        target = pad([[BOS, *vocabulary.encode(t), EOS] for _, t in chunk])
        index = torch.full((len(chunk),), task)
        best = model(source, target[:, :-1], starts.weights(model, index)).argmax(-1)
        wanted = target[:, 1:]
        right += int(((best == wanted) | (wanted == PAD)).all(1).sum())
    return right / len(pairs)


def _schedule(step: int, settings: PretrainSettings) -> float:
    if step < settings.warmup_steps:
        return step / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    low = settings.final_ratio
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def _batches(
    train: Mapping[str, Pairs],
    names: Sequence[str],
    vocabulary: Vocabulary,
    settings: PretrainSettings,
    rng: random.Random,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Sources, the symbols that they stand for, targets and tasks, in batches of about equal lengths.

    A pool is drawn, sorted by length, cut, shuffled.
    """
    shares = [len(train[name]) ** settings.size_exponent for name in names]
    while True:
        pool = []
        for task in rng.choices(range(len(names)), shares, k=16 * settings.batch):
            source, target = rng.choice(train[names[task]])
            spelt = rng.random() < settings.byte_dropout
            known = vocabulary.encode(source)
            ids, stands_for = _spell(source, vocabulary, rng) if spelt else (known, known)
            wanted = [BOS, *vocabulary.encode(target), EOS]
            pool.append(([*ids, EOS], [*stands_for, EOS], wanted, task))
        pool.sort(key=lambda row: (len(row[0]) + len(row[2]), len(row[0])))
        cuts = list(range(0, len(pool), settings.batch))
        rng.shuffle(cuts)
        for at in cuts:
            sources, symbols, targets, tasks = zip(*pool[at : at + settings.batch], strict=True)
            yield pad(sources), pad(symbols), pad(targets), torch.tensor(tasks)


def _spell(text: str, vocabulary: Vocabulary, rng: random.Random) -> tuple[list[int], list[int]]:
    """Ids of a text with about a third of its characters as bytes, so that byte rows are trained.

    Beside them the symbol that each stands for: a spelt character can be copied as the character.
    """
    ids: list[int] = []
    symbols: list[int] = []
    for character in text:
        known = vocabulary.encode(character)
        if rng.random() < 1 / 3:
            spelt = [FIRST_BYTE + byte for byte in character.encode()]
            ids.extend(spelt)
            symbols.extend(known * len(spelt) if len(known) == 1 else known)
        else:
            ids.extend(known)
            symbols.extend(known)
    return ids, symbols
