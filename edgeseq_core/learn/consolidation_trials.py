"""Bases that a consolidation may publish, each judged by what every task makes of its held-out pairs on it.

What is judged are the int8 bytes of base and calibrations that would serve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeseq_core import __version__
from edgeseq_core.engine import PairRow, Score
from edgeseq_core.learn import plateau
from edgeseq_core.learn.consolidation import Consolidation, Pairs
from edgeseq_core.learn.consolidation_tasks import Kept
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.study import TorchStudy
from edgeseq_core.model.task_space import place_of
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.gate import summary
from edgeseq_core.snapshots.manifest import GateReport

MOST_FALL = 0.5  # points of exact answers that a task may be below its champion
SHARES = (1.0, 0.5)  # of the way from the old base: the second, where the first is refused
AT_ONCE = 64  # pairs scored in a batch


@dataclass(frozen=True)
class TaskScore:
    """A task's exact answers and loss on its held-out pairs, by its champion and on the new base."""

    task: str
    learnt_from: int  # pairs
    held_out: int  # pairs
    before: float  # %
    after: float  # %
    nats_before: float  # a token
    nats_after: float

    @property
    def falls(self) -> bool:
        return self.after < self.before - MOST_FALL


@dataclass(frozen=True)
class Trial:
    """A new base that was judged: how far it lies from the old one, and what every task makes of it."""

    share: float
    scores: Sequence[TaskScore]
    refused: Sequence[str]  # sentences; none: it may be published


@dataclass(frozen=True)
class Refit:
    """A task on the new base: the learner that goes on from there, and why it may serve."""

    kept: Kept
    learner: TaskLearner
    report: GateReport


@dataclass(frozen=True)
class Made:
    """A base that may be published, with all tasks on it."""

    base: Base
    refits: Mapping[str, Refit]


def trials(
    run: Consolidation,
    tasks: Sequence[Kept],
    base: Base,
    draft: Path,
    *,
    learning: LearningSettings,
) -> Iterator[tuple[Trial, Made]]:
    """Bases on the way from the old one to that of the run, each written to ``draft`` and judged."""
    notes = {
        "version": __version__,
        "consolidated_from": base.digest,
        "settings": asdict(run.settings),
        "tasks": {kept.task: len(kept.replay.pairs) for kept in tasks},
    }
    before = {kept.task: _scores(base, kept.payload, kept.held_out) for kept in tasks}
    for share in SHARES:
        model, calibrations = run.blended(share)
        new = _written(draft, base, model, notes | {"share": share})
        rows, refits = list[TaskScore](), dict[str, Refit]()
        for kept in tasks:
            learner = _learner(kept, base, new, calibrations[kept.task], learning)
            old, after = before[kept.task], _scores(new, learner.payload(), kept.held_out)
            rows.append(_row(kept, old, after))
            refits[kept.task] = Refit(kept, learner, _report(old, after))
        yield Trial(share, rows, why_not(rows)), Made(new, refits)


def why_not(rows: Sequence[TaskScore]) -> list[str]:
    """Why a new base may not be published: a task falls, the mean does not rise, or the mean loss does."""
    reasons = [
        f"task {row.task} falls from {row.before:.1f} to {row.after:.1f} % of {row.held_out} "
        "held-out pairs"
        for row in rows
        if row.falls
    ]
    before, after, nats_before, nats_after = (
        sum(getattr(row, name) for row in rows) / len(rows)
        for name in ("before", "after", "nats_before", "nats_after")
    )
    if after <= before:
        reasons.append(f"the mean of the tasks does not rise ({before:.2f} to {after:.2f} %)")
    if (
        nats_after > nats_before
    ):  # a few held-out pairs come right by luck, their loss does not fall by it
        reasons.append(
            f"the mean loss of the tasks rises ({nats_before:.3f} to {nats_after:.3f} nats a token)"
        )
    return reasons


def _written(draft: Path, base: Base, model: EdgeFormer, notes: Mapping[str, Any]) -> Base:
    """The network as int8 in a file, and as that file says it."""
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    draft.parent.mkdir(parents=True, exist_ok=True)
    write_base(draft, tensors, config=model.config, vocabulary=base.vocabulary, notes=notes)
    return Base.load(draft)


def _learner(
    kept: Kept, base: Base, new: Base, calibration: Calibration, learning: LearningSettings
) -> TaskLearner:
    """A task's learner on the new base: as far as it was, with the calibration that moved with the base."""
    study = TorchStudy(new, CachingEncoder(new, calibrated_layers=learning.encoder_layers))
    before = TaskLearner.from_checkpoint(kept.checkpoint, base, kept.task, learning, study)
    learner = TaskLearner(new, kept.task, learning, study)
    sources = [source for source, _ in (*kept.replay.pairs, *kept.held_out)]
    learner.calibration = Calibration(
        new.model,
        new.vocabulary,
        calibration.config,
        tensors=calibration.tensors,
        owned=calibration.owned,
        place=place_of(new, sources, at_once=AT_ONCE),
    )
    learner.begin_averages()
    # Its moments are gone with the old base, so its step size warms up again.
    learner.progress = replace(before.progress, warmed=0)
    plateau.start_over(learner.progress)
    return learner


def _scores(base: Base, payload: bytes, pairs: Pairs) -> list[Score]:
    """What a snapshot's bytes score on pairs, through the reference engine."""
    engine, scores = TorchEngine(base), list[Score]()
    engine.swap("task", "task", payload)
    for at in range(0, len(pairs), AT_ONCE):
        scores += engine.score([PairRow("task", *pair) for pair in pairs[at : at + AT_ONCE]])
    return scores


def _row(kept: Kept, before: Sequence[Score], after: Sequence[Score]) -> TaskScore:
    exact = [100 * sum(s.exact for s in scores) / len(scores) for scores in (before, after)]
    nats = [sum(s.loss for s in some) / sum(s.tokens for s in some) for some in (before, after)]
    return TaskScore(kept.task, len(kept.replay.pairs), len(kept.held_out), *exact, *nats)


def _report(before: Sequence[Score], after: Sequence[Score]) -> GateReport:
    """The verdict as the gate's: what follows is compared with this snapshot."""
    old = {"held_out": summary(before)}
    return GateReport(
        verdict="promote",
        reasons=(f"consolidated base: no task falls by more than {MOST_FALL} points",),
        candidate={"held_out": summary(after)},
        champion=old,
        reference=old,
    )
