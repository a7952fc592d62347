"""A better base for all tasks, or none: train it on their replay, judge it on what they hold out, publish it.

Until it is published, the store is only read: killed or refused before, nothing has changed.  What is
published is one file and, for each task, a snapshot on it that serves at once.  The change itself is that of
`change_base`; killed in the middle, that one goes on when it is called, and the tasks that have no snapshot
of the new base yet learn anew on it.  The way back is `change_base` to the former file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeseq_core import __version__
from edgeseq_core.clock import Clock
from edgeseq_core.engine import PairRow, Score
from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.change_base import TaskChange, change_base
from edgeseq_core.learn.consolidation import Consolidation, ConsolidationSettings, Pairs, Replay
from edgeseq_core.learn.example import read_example
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.task_space import place_of
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.replay.buffer import ROLES, Part, ReplayBuffer
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.gate import summary
from edgeseq_core.snapshots.manifest import GateReport
from edgeseq_core.snapshots.registry import SnapshotRegistry

MOST_FALL = 0.5  # points of exact answers that a task may be below its champion
SHARES = (1.0, 0.5)  # of the way from the old base: the second, where the first is refused
AT_ONCE = 64  # pairs scored in a batch


@dataclass(frozen=True)
class Kept:
    """A task as the store has it."""

    task: str
    champion: str  # snapshot id
    payload: bytes
    checkpoint: bytes
    step: int  # the learner's last one: the task has not moved on while it is the same
    replay: Replay  # the reservoir
    held_out: Pairs  # recent slice and probe set: no calibration has learnt them


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


@dataclass(frozen=True)
class Outcome:
    """What a consolidation came to; ``made`` is None when no trial may be published."""

    trials: Sequence[Trial]
    steps: int
    made: Made | None


def kept_tasks(
    buffer: ReplayBuffer, registry: SnapshotRegistry, base: Base, *, partitions: int
) -> list[Kept]:
    """All tasks that have a champion; the owners' epochs are taken: consumer and learner must be stopped.

    Raises ConfigError when there are none, or when one cannot be judged: it is pinned, on another base, being
    learnt anew or purged, or holds out nothing.
    """
    found = []
    for partition in range(partitions):
        tasks = buffer.tasks(partition)
        if tasks:
            for role in ROLES:
                buffer.acquire(role, partition)
        served = [task for task in tasks if registry.status(task).champion is not None]
        found += [_kept(buffer, registry, base, task, partition) for task in served]
    if not found:
        raise ConfigError("no task has a champion yet: teach some first")
    return found


def _kept(
    buffer: ReplayBuffer, registry: SnapshotRegistry, base: Base, task: str, partition: int
) -> Kept:
    """A task that can be judged, or ConfigError."""
    status, state = registry.status(task), buffer.state(task)
    assert status.champion is not None
    manifest = registry.record(task, status.champion).manifest
    learn = _pairs(buffer, task, base, ["reservoir"])
    held_out = _pairs(buffer, task, base, ["recent", "probe"])
    for wrong, what in (
        (
            task in registry.relearning([partition]) or status.purging or status.tainted,
            "is to be learnt anew: let its learner do so first",
        ),
        (manifest.base != base.digest, f"is served on base {manifest.base[:12]}: name that one"),
        (status.pinned, "is pinned to its champion: unpin it first"),
        (
            not learn or not held_out,
            "holds out no pairs that could judge a new base: teach it more, not as corrections",
        ),
    ):
        if wrong:
            raise ConfigError(f"task {task} {what}")
    assert state.checkpoint is not None
    return Kept(
        task=task,
        champion=status.champion,
        payload=registry.payload(manifest),
        checkpoint=state.checkpoint,
        step=state.last_step,
        replay=Replay(learn, gone=1 - len(learn) / max(len(learn), buffer.stats(task).learnt)),
        held_out=held_out,
    )


def consolidate(
    tasks: Sequence[Kept],
    base: Base,
    out: Path,
    *,
    settings: ConsolidationSettings,
    learning: LearningSettings,
    clock: Callable[[], float] = time.process_time,
) -> Outcome:
    """Train on the tasks' replay, and write the base to ``out`` if no task falls and the mean rises.

    ``clock`` counts CPU-seconds.  Raises ConfigError when there is a file.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already, and may be in use: name another file")
    run = trained(tasks, base, settings, clock)
    draft, judged = out.with_name(out.name + ".part"), list[Trial]()
    try:
        for trial, made in trials(run, tasks, base, draft, learning=learning):
            judged.append(trial)
            if not trial.refused:
                draft.replace(out)
                return Outcome(judged, run.steps, made)
    finally:
        draft.unlink(missing_ok=True)
    return Outcome(judged, run.steps, None)


def trained(
    tasks: Sequence[Kept],
    base: Base,
    settings: ConsolidationSettings,
    clock: Callable[[], float] = time.process_time,
) -> Consolidation:
    """A run over the tasks, at its end."""
    champions = {
        kept.task: Calibration.from_payload(kept.payload, base.model, base.vocabulary, base.digest)
        for kept in tasks
    }
    run = Consolidation(
        base, champions, {kept.task: kept.replay for kept in tasks}, settings, cpu_clock=clock
    )
    run.run()
    return run


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
    """Why a new base may not be published, in sentences: a task falls, or the mean does not rise."""
    reasons = [
        f"task {row.task} falls from {row.before:.1f} to {row.after:.1f} % of {row.held_out} "
        "held-out pairs"
        for row in rows
        if row.falls
    ]
    before, after = (sum(getattr(r, n) for r in rows) / len(rows) for n in ("before", "after"))
    if after <= before:
        reasons.append(f"the mean of the tasks does not rise ({before:.2f} to {after:.2f} %)")
    return reasons


def publish(
    made: Made,
    buffer: ReplayBuffer,
    registry: SnapshotRegistry,
    *,
    old: Base,
    learning: LearningSettings,
    partitions: int,
    clock: Clock,
) -> Iterator[TaskChange]:
    """Change every task to the new base, as `change_base` does, and let its refitted calibration serve.

    Yields what became of each.  Raises FencedError when a consumer or a learner runs, ConfigError when a task
    has moved on since it was read.
    """
    new = made.base
    for task, refit in made.refits.items():
        if buffer.state(task).last_step != refit.kept.step:
            raise ConfigError(
                f"task {task} has learnt since it was consolidated: stop its learner and "
                "consolidate again"
            )
    changes = list(
        change_base(
            buffer,
            registry,
            old=old.header,
            new=new.header,
            partitions=partitions,
            clock=clock,
        )
    )
    loop = LearnerLoop(
        buffer,
        registry,
        new,
        learning,
        partitions=range(partitions),
        partition_count=partitions,
        clock=clock,
    )
    for change in changes:
        if change.task not in made.refits or not change.relearns:
            yield change
            continue
        refit = made.refits[change.task]
        snapshot_id = loop.adopt(change.task, refit.learner, refit.report).snapshot_id
        yield replace(change, snapshot_id=snapshot_id, relearns=False)


def _pairs(buffer: ReplayBuffer, task: str, base: Base, parts: Sequence[Part]) -> Pairs:
    """The texts of some parts of a task."""
    stored = (pair for part in parts for pair in buffer.read(task, part))
    read = (read_example(p, base.vocabulary, base.header.record_digest) for p in stored)
    return [(example.source, example.target) for example in read]


def _written(draft: Path, base: Base, model: EdgeFormer, notes: Mapping[str, Any]) -> Base:
    """The network as int8 in a file, and as that file says it."""
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    draft.parent.mkdir(parents=True, exist_ok=True)
    write_base(draft, tensors, config=base.config, vocabulary=base.vocabulary, notes=notes)
    return Base.load(draft)


def _learner(
    kept: Kept, base: Base, new: Base, calibration: Calibration, learning: LearningSettings
) -> TaskLearner:
    """A task's learner on the new base: as far as it was, with the calibration that moved with the base."""
    encoder = CachingEncoder(new, calibrated_layers=learning.encoder_layers)
    before = TaskLearner.from_checkpoint(kept.checkpoint, base, kept.task, learning, encoder)
    learner = TaskLearner(new, kept.task, learning, encoder)
    sources = [source for source, _ in (*kept.replay.pairs, *kept.held_out)]
    learner.calibration = Calibration(
        new.model,
        new.vocabulary,
        calibration.config,
        tensors=calibration.tensors,
        owned=calibration.owned,
        place=place_of(new, sources, at_once=AT_ONCE),
    )
    learner.average = {name: t.detach().clone() for name, t in calibration.tensors.items()}
    # Its moments are gone with the old base, so its step size warms up again.
    learner.progress = replace(before.progress, warmed=0)
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
