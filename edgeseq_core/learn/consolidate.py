"""A better base for all tasks, or none: train it on their replay, judge it on what they hold out, publish it.

Until it is published, the store is only read: killed or refused before, nothing has changed.  What is
published is one file and, for each task, a snapshot on it that serves at once.  The change itself is that of
`change_base`; killed in the middle, that one goes on when it is called, and the tasks that have no snapshot
of the new base yet learn anew on it.  The way back is `change_base` to the former file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeseq_core.clock import Clock
from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.change_base import TaskChange, change_base
from edgeseq_core.learn.consolidation import Consolidation, ConsolidationSettings
from edgeseq_core.learn.consolidation_tasks import Kept
from edgeseq_core.learn.consolidation_trials import Made, Trial, trials
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_growth import widen_ffns
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.growth import carry
from edgeseq_core.replay.buffer import ReplayBuffer
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.registry import SnapshotRegistry


@dataclass(frozen=True)
class Outcome:
    """What a consolidation came to; ``made`` is None when no trial may be published."""

    trials: Sequence[Trial]
    steps: int
    made: Made | None


def consolidate(
    tasks: Sequence[Kept],
    base: Base,
    out: Path,
    *,
    settings: ConsolidationSettings,
    learning: LearningSettings,
    clock: Callable[[], float] = time.process_time,
) -> Outcome:
    """Train on the tasks' replay, and write the base to ``out`` if a trial may be published.

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
                with draft.open("rb") as written:
                    os.fsync(written.fileno())  # the store will name it
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
    """A run over the tasks, at its end; raises ConfigError when the base cannot be widened as asked."""
    champions = {
        kept.task: Calibration.from_payload(kept.payload, base.model, base.vocabulary, base.digest)
        for kept in tasks
    }
    if settings.encoder_ffn is not None:
        base, champions = widened(base, champions, settings.encoder_ffn)
    run = Consolidation(
        base, champions, {kept.task: kept.replay for kept in tasks}, settings, cpu_clock=clock
    )
    run.run()
    return run


def widened(
    base: Base, champions: Mapping[str, Calibration], encoder_ffn: int
) -> tuple[Base, dict[str, Calibration]]:
    """Base and champions with wider FFNs in the encoder, which compute what they did."""
    have = base.config.encoder_ffn
    if encoder_ffn <= have:
        raise ConfigError(f"the encoder's FFNs have {have} hidden units: ask for more than that")
    model = widen_ffns(base.model, encoder_ffn=encoder_ffn).requires_grad_(False)
    header = replace(base.header, config=model.config)
    return Base(header, model), {task: carry(one, model) for task, one in champions.items()}


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
    """Change every task to the new base, as `change_base` does, and let its calibration there serve.

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
