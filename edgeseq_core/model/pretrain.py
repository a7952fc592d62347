"""Make a base: train an EdgeFormer on many real tasks, then freeze it as int8.

A run keeps a folder beside the base it makes.  Killed at any step and started again, it makes the same
bytes as one that was never stopped: its checkpoint holds weights, moments, both random states and the
position in the data.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgeseq_core import __version__
from edgeseq_core.errors import ConfigError
from edgeseq_core.model.config import (
    LARGE_VOCABULARY,
    LARGE_VOCABULARY_SUBWORDS,
    SHAPES,
    ModelConfig,
    preset,
)
from edgeseq_core.model.mixture_batches import MixtureBatches, Pairs
from edgeseq_core.model.objective import Labels, Objective
from edgeseq_core.model.run_folder import RunFolder
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.subwords import learn_subwords
from edgeseq_core.text.vocabulary import PAD, Vocabulary

SAVE_EVERY_S = 60.0  # a killed run loses so much work; writing 10 M numbers takes about a second
DEV_EVERY_REPORTS = 10
DEV_SAMPLE = 8  # pairs a task in the dev curve; the last report has all of them
CLIP_NORM = 1.0
# A step sums the gradients of so many batches.  Pairs of one length are of few tasks: after 400 steps of
# one batch the dev loss was 2.13 nats a token, of two 1.96, of four 1.90 but in more time.
STEP_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How long and how a base is trained; raises ConfigError for what cannot be run."""

    preset: str = "128"
    output: Literal["vocabulary", "copy"] = "vocabulary"
    steps: int = 14_000
    batch: int = 64  # pairs a step, on average: steps have about equal tokens
    learning_rate: float | None = None  # None: by the width, see `peak_learning_rate`
    warmup_steps: int = 400
    final_ratio: float = 0.02  # of the learning rate, at the last step
    label_smoothing: float = 0.05
    byte_dropout: float = 0.02  # share of sources of which some characters are spelt as bytes
    size_exponent: float = 0.5  # a task is drawn with probability ~ pairs ** size_exponent
    max_characters: int = 1_000
    min_count: int = 20
    subwords: int | None = None  # pieces merged of characters; None: as many as the preset is for
    seed: int = 1
    threads: int = 1
    device: str = "cpu"
    precision: str = "fp32"  # or bf16: matrix products in bfloat16, weights and moments in fp32

    def __post_init__(self) -> None:
        if self.preset not in SHAPES:
            raise ConfigError(f"preset {self.preset} is unknown: choose one of {', '.join(SHAPES)}")
        if self.preset in LARGE_VOCABULARY and self.output != "vocabulary":
            raise ConfigError(f"preset {self.preset} goes with the output vocabulary only")
        if self.pieces < 0:
            raise ConfigError(f"there cannot be {self.pieces} subwords: ask for 0 or more")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("PyTorch sees no CUDA device here: choose --device cpu")

    @property
    def pieces(self) -> int:
        """How many subwords the vocabulary gets at most."""
        if self.subwords is not None:
            return self.subwords
        return LARGE_VOCABULARY_SUBWORDS if self.preset in LARGE_VOCABULARY else 0

    def config(self, *, vocabulary_size: int) -> ModelConfig:
        """The shape of a new base; raises ConfigError when the preset does not fit."""
        try:
            return preset(self.preset, vocabulary_size=vocabulary_size, output=self.output)
        except ValueError as error:
            raise ConfigError(
                f"preset {self.preset} with output {self.output} and a vocabulary of "
                f"{vocabulary_size} cannot be made: {error}"
            ) from None

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after the warm-up; without one given, 0.002 at width 128, ~ 1 / sqrt(width)."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-3 * math.sqrt(128 / SHAPES[self.preset]["d_model"])


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """Progress of a run: yielded every ``report_every`` steps, and once at the end with dev scores."""

    step: int
    learning_rate: float
    loss: float  # nats a token, mean of about the last ``report_every`` steps
    accuracy: float  # share of training tokens right, likewise
    seconds: float  # of training, before and after a resumption
    dev_accuracy: float | None = None  # share of a few dev pairs right, mean of the tasks
    dev_exact: Mapping[str, float] | None = None  # of all dev pairs, by task

    @property
    def row(self) -> dict[str, float | None]:
        """Its row in the curves."""
        return {name: value for name, value in vars(self).items() if name != "dev_exact"}


def pretrain(
    train: Mapping[str, Pairs],
    dev: Mapping[str, Pairs],
    out: Path,
    settings: PretrainSettings,
    *,
    report_every: int = 50,
    trainee: Trainee | None = None,
    objective: Objective | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Iterator[PretrainReport]:
    """Train a base on ``train`` and write it to ``out``, or go on with the run that is there.

    ``trainee`` (None: random weights) and ``objective`` (None: the labels) are what is trained and for
    what; ``origin`` tells where they come from, in the base's notes.  The last report has exact match
    on ``dev``.  Raises ConfigError when the run that is there has other settings or data.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    trainee = trainee or _new(train, settings)
    identity = {
        "settings": asdict(settings),
        "data": _digest(train),
        "origin": dict(origin or {}),
        "version": __version__,
    }
    folder, run = RunFolder(out, identity), Training(trainee, train, settings, objective)
    rows: list[dict[str, float | None]] = []
    if (kept := folder.load()) is not None:
        state, tensors = kept
        run.restore(state["run"], tensors)
        rows = state["rows"]
    saved = time.monotonic()
    began = saved - run.seconds
    while run.step < settings.steps:
        run.advance(window=report_every)
        now = time.monotonic()
        run.seconds = now - began
        last = run.step == settings.steps
        if run.step % report_every == 0 and not last:
            sampled = run.step // report_every % DEV_EVERY_REPORTS == 0
            report = run.report(_dev_accuracy(trainee, dev) if sampled else None)
            rows.append(report.row)
            yield report
        if now - saved >= SAVE_EVERY_S or last:
            folder.save({"run": run.state(), "rows": rows}, run.tensors())
            folder.write_curves(rows)
            trainee.write(out, {**identity, "step": run.step})
            saved = now
    exact = {name: trainee.dev_exact(name, dev[name]) for name in trainee.names if dev.get(name)}
    notes = {
        "version": __version__,
        "settings": asdict(settings),
        "tasks": {name: len(train[name]) for name in trainee.names},
        "dev_exact": exact,
        **({"origin": dict(origin)} if origin else {}),
    }
    trainee.write(out, notes)
    report = run.report(_dev_accuracy(trainee, dev), exact)
    folder.write_curves([*rows, report.row])
    yield report


class Training:
    """A run between two steps: everything that decides the next one."""

    def __init__(
        self,
        trainee: Trainee,
        train: Mapping[str, Pairs],
        settings: PretrainSettings,
        objective: Objective | None = None,
    ) -> None:
        self.trainee, self.settings = trainee.to(settings.device), settings
        self._objective = objective or Labels(smoothing=settings.label_smoothing)
        self.batches = MixtureBatches(
            [train[name] for name in trainee.names],
            trainee.vocabulary,
            batch=max(1, settings.batch // STEP_BATCHES),
            size_exponent=settings.size_exponent,
            byte_dropout=settings.byte_dropout,
            seed=settings.seed,
        )
        self._optimizer = torch.optim.AdamW(
            trainee.parameters(),
            lr=settings.peak_learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=True,
        )
        self.step, self.seconds, self.loss, self.accuracy = 0, 0.0, 0.0, 0.0

    @property
    def learning_rate(self) -> float:
        """Of the step taken last: linear warm-up, then half a cosine."""
        s = self.settings
        if self.step < s.warmup_steps:
            return s.peak_learning_rate * self.step / s.warmup_steps
        done = (self.step - s.warmup_steps) / max(1, s.steps - s.warmup_steps)
        half_cosine = 0.5 * (1 + math.cos(math.pi * done))
        return s.peak_learning_rate * (s.final_ratio + (1 - s.final_ratio) * half_cosine)

    def advance(self, *, window: int) -> int:
        """One step; loss and accuracy become means of about ``window`` steps.  Returns its pairs."""
        self.step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        batches = [next(self.batches).to(self.trainee.device) for _ in range(STEP_BATCHES)]
        tokens = [int((batch.target[:, 1:] != PAD).sum()) for batch in batches]
        mean_loss = right = 0.0
        for batch, own in zip(batches, tokens, strict=True):
            with self._precision():
                scores = self.trainee(
                    batch.source, batch.target[:, :-1], batch.tasks, batch.symbols
                )
            loss = self._objective(scores.float(), batch) * (own / sum(tokens))
            loss.backward()  # type: ignore[no-untyped-call]
            wanted = batch.target[:, 1:]
            mean_loss += loss.item()
            right += int(((scores.argmax(-1) == wanted) & (wanted != PAD)).sum())
        nn.utils.clip_grad_norm_(self.trainee.parameters(), CLIP_NORM)
        self._optimizer.step()
        share = 1 / min(self.step, window)
        self.loss += (mean_loss - self.loss) * share
        self.accuracy += (right / sum(tokens) - self.accuracy) * share
        return sum(len(batch.source) for batch in batches)

    def report(
        self, dev_accuracy: float | None, dev_exact: Mapping[str, float] | None = None
    ) -> PretrainReport:
        """Where the run is."""
        return PretrainReport(
            step=self.step,
            learning_rate=self.learning_rate,
            loss=self.loss,
            accuracy=self.accuracy,
            seconds=self.seconds,
            dev_accuracy=dev_accuracy,
            dev_exact=dev_exact,
        )

    def state(self) -> dict[str, Any]:
        """What `tensors` does not hold, as JSON."""
        named = {name: getattr(self, name) for name in ("step", "seconds", "loss", "accuracy")}
        return {**named, "position": self.batches.position()}

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moments and torch's random state."""
        moments = {
            f"moments.{at}.{name}": value
            for at, of_one in self._optimizer.state_dict()["state"].items()
            for name, value in of_one.items()
        }
        return {**self.trainee.state_dict(), **moments, "random": torch.get_rng_state()}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Become the run that `state` and `tensors` were taken from."""
        for name in ("step", "seconds", "loss", "accuracy"):
            setattr(self, name, state[name])
        self.batches.seek(state["position"])
        self.trainee.load_state_dict({name: tensors[name] for name in self.trainee.state_dict()})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("moments."):
                _, at, kind = name.split(".")
                moments.setdefault(int(at), {})[kind] = tensor
        of_all = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": of_all})
        torch.set_rng_state(tensors["random"])

    def _precision(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.settings.device, dtype=torch.bfloat16)


def build_vocabulary(train: Mapping[str, Pairs], settings: PretrainSettings) -> Vocabulary:
    """The most frequent characters of all tasks, and subwords of them; rarer ones are spelt as bytes."""
    counts: Counter[str] = Counter()
    for pairs in train.values():
        for source, target in pairs:
            counts.update(source)
            counts.update(target)
    for code in range(0x20, 0x7F):  # printable ASCII is always known
        counts[chr(code)] += 1 << 40
    kept = [c for c, n in counts.most_common(settings.max_characters) if n >= settings.min_count]
    if not settings.pieces:
        return Vocabulary(sorted(kept))
    texts = (text for name in sorted(train) for pair in train[name] for text in pair)
    return learn_subwords(texts, sorted(kept), pieces=settings.pieces)


def _new(train: Mapping[str, Pairs], settings: PretrainSettings) -> Trainee:
    vocabulary = build_vocabulary(train, settings)
    config = settings.config(vocabulary_size=len(vocabulary))
    return Trainee.new(config, sorted(train), vocabulary)


def _dev_accuracy(trainee: Trainee, dev: Mapping[str, Pairs]) -> float | None:
    scored = [trainee.dev_exact(n, dev[n][:DEV_SAMPLE]) for n in trainee.names if dev.get(n)]
    return sum(scored) / len(scored) if scored else None


def _digest(train: Mapping[str, Pairs]) -> str:
    """What the data is, whatever the order of its tasks."""
    made = hashlib.sha256()
    for name in sorted(train):
        pairs: Sequence[tuple[str, str]] = train[name]
        made.update(json.dumps([name, pairs]).encode())
    return made.hexdigest()
