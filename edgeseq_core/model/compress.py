"""Ways to a smaller base that end in a training run: prune one and let it heal, or follow teachers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.lessons import Lessons
from edgeseq_core.model.mixture_batches import Pairs
from edgeseq_core.model.objective import Distillation, Labels
from edgeseq_core.model.pretrain import PretrainReport, PretrainSettings, Training, pretrain
from edgeseq_core.model.prune import choose, importance, prune, without_top_layers
from edgeseq_core.model.run_folder import replace, run_path
from edgeseq_core.model.teacher import Level, Teacher
from edgeseq_core.model.trainee import Trainee

IMPORTANCE_BATCHES = 100
START_STEPS = 200  # of training tokens and vectors of tasks alone
START_LEARNING_RATE = 5e-3


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """Shares of a base's units that go, and how many encoder layers; raises ConfigError when all would."""

    ffn_share: float
    head_share: float = 0.0
    layers: int = 0  # from the top

    def __post_init__(self) -> None:
        for name in ("ffn_share", "head_share"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise ConfigError(f"{name} is {share}: choose a share of at least 0 and below 1")
        if self.layers < 0:
            raise ConfigError(f"layers is {self.layers}: choose 0 or more")

    def check(self, config: ModelConfig) -> None:
        """Raises ConfigError for a base whose heads cannot be pruned, or that has too few layers."""
        if self.layers >= config.encoder_layers:
            raise ConfigError(
                f"the base has {config.encoder_layers} encoder layers: prune fewer than that"
            )
        if self.head_share and config.numbered_heads:
            raise ConfigError(
                "heads of this base cannot be pruned, since a head's number decides how far it sees "
                "(retention, linear positions): leave head_share at 0 and prune FFN columns"
            )


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How a student listens to its teachers."""

    level: Level = "word"
    pairs: int = 10_000  # a task, of which lessons are made
    top_k: int = 8
    temperature: float = 1.0
    share: float = 0.5  # of the loss; the rest is for the targets


def pretrain_pruned(
    base: Path | None,
    train: Mapping[str, Pairs],
    dev: Mapping[str, Pairs],
    out: Path,
    settings: PretrainSettings,
    pruning: PruneSettings,
) -> Iterator[PretrainReport]:
    """Prune a base (None: the shipped one), then train what is left.

    Raises ConfigError as `PruneSettings.check` does.
    """
    header = read_header(base)
    pruning.check(header.config)
    trainee = trainee_of(base, train, settings)
    smaller = pruned(trainee, train, settings, pruning)
    origin = {
        "pruned": header.digest,
        "base": base.name if base else None,
        **asdict(pruning),
    }
    yield from pretrain(train, dev, out, settings, trainee=smaller, origin=origin)


def pretrain_taught(
    teachers: Sequence[Path],
    train: Mapping[str, Pairs],
    dev: Mapping[str, Pairs],
    out: Path,
    settings: PretrainSettings,
    distilling: DistillSettings,
) -> Iterator[PretrainReport]:
    """Train a new base to follow the teachers; their lessons are made once and kept in the run folder.

    Raises ConfigError when the teachers do not fit together or have nothing to say.
    """
    origin = {
        "teachers": [read_header(path).digest for path in teachers],
        "bases": [path.name for path in teachers],
        **asdict(distilling),
    }
    teacher = Teacher([trainee_of(path, train, settings) for path in teachers])
    taught, lessons = dict[str, Pairs](), list[Lessons]()
    for name in sorted(train):
        pairs = train[name][: distilling.pairs]
        file = run_path(out) / "lessons" / f"{name}.safetensors"
        made = _lessons(teacher, name, pairs, file, distilling, origin)
        if len(made.places):
            lessons.append(made)
            taught[name] = _pairs(pairs, made, teacher)
    if not taught:
        raise ConfigError("no answer of the teachers ends: train them longer, or distill words")
    config = settings.config(vocabulary_size=len(teacher.vocabulary))
    torch.manual_seed(settings.seed)  # of the first weights; `pretrain` sets it for the rest
    student = Trainee.new(config, list(taught), teacher.vocabulary)
    objective = Distillation(lessons, smoothing=settings.label_smoothing, share=distilling.share)
    yield from pretrain(
        taught, dev, out, settings, trainee=student, objective=objective, origin=origin
    )


def trainee_of(
    base: Path | None, train: Mapping[str, Pairs], settings: PretrainSettings
) -> Trainee:
    """A base (None: the shipped one) with a start for each task of ``train``.

    They come from its run folder; where it has none, they are fitted to the frozen base.
    """
    if base is not None and run_path(base).exists():
        return Trainee.of_run(base).to(settings.device)
    loaded = Base.load(base)
    trainee = Trainee.of_base(loaded.model, sorted(train), loaded.vocabulary)
    fit_starts(trainee, train, settings)
    return trainee


def fit_starts(trainee: Trainee, train: Mapping[str, Pairs], settings: PretrainSettings) -> None:
    """Train the tasks' tokens and vectors, and nothing else."""
    few = PretrainSettings(
        **asdict(settings)
        | {
            "steps": START_STEPS,
            "warmup_steps": START_STEPS // 10,
            "learning_rate": START_LEARNING_RATE,
        }
    )
    trainee.model.requires_grad_(False)
    fit = Training(trainee, train, few)
    for _ in range(START_STEPS):
        fit.advance(window=START_STEPS)
    trainee.model.requires_grad_(True)


def pruned(
    trainee: Trainee,
    train: Mapping[str, Pairs],
    settings: PretrainSettings,
    pruning: PruneSettings,
) -> Trainee:
    """The trainee without its top layers and its least important units; the tasks' starts stay."""
    if pruning.layers:
        model = without_top_layers(trainee.model, pruning.layers)
        trainee = Trainee(model, trainee.starts, trainee.names, trainee.vocabulary)
    run = Training(trainee, train, settings)
    found = importance(trainee, islice(run.batches, IMPORTANCE_BATCHES), Labels(smoothing=0.0))
    kept = choose(found, ffn_share=pruning.ffn_share, head_share=pruning.head_share)
    return Trainee(prune(trainee.model, kept), trainee.starts, trainee.names, trainee.vocabulary)


def _lessons(
    teacher: Teacher,
    name: str,
    pairs: Pairs,
    file: Path,
    distilling: DistillSettings,
    origin: Mapping[str, Any],
) -> Lessons:
    """What an earlier start of the same run kept, else new ones."""
    identity = {**origin, "task": name, "count": len(pairs)}
    kept = Lessons.read(file, identity)
    if kept is not None:
        return kept
    made = teacher.lessons(
        name,
        pairs,
        level=distilling.level,
        k=distilling.top_k,
        temperature=distilling.temperature,
    )
    replace(file, lambda draft: made.write(draft, identity))
    return made


def _pairs(pairs: Pairs, lessons: Lessons, teacher: Teacher) -> Pairs:
    """The sources of the lessons, in their order, each with the target that the lesson is on."""
    return [
        (pairs[place][0], teacher.vocabulary.decode(lessons.target(row)))
        for row, place in enumerate(lessons.places.tolist())
    ]
