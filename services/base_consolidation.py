"""Consolidation of an instance's base, wherever its store is (as `base_change`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from edgeseq_core.clock import SystemClock
from edgeseq_core.learn.change_base import TaskChange
from edgeseq_core.learn.consolidate import Outcome, consolidate, publish
from edgeseq_core.learn.consolidation import ConsolidationSettings
from edgeseq_core.learn.consolidation_tasks import kept_tasks
from edgeseq_core.model.base import Base
from edgeseq_core.settings import Settings

from .base_change import reachable
from .cli.store import open_store


def consolidate_stored_base(
    out: Path, *, run: ConsolidationSettings, settings: Settings, directory: Path | None
) -> Iterator[Outcome | TaskChange]:
    """Consolidate the base that ``base.path`` names into ``out``: the outcome, then what became of each task.

    Raises ConfigError while an `edgeseq up` runs in the folder, and for what `kept_tasks` refuses.
    """
    torch.set_num_threads(1)
    base = Base.load(settings.base.path)
    with reachable(settings, directory) as reached, open_store(reached) as store:
        outcome = consolidate(
            kept_tasks(store.buffer, store.registry, base, partitions=store.partitions),
            base,
            out,
            settings=run,
            learning=settings.learning,
        )
        yield outcome
        if outcome.made is not None:
            yield from publish(
                outcome.made,
                store.buffer,
                store.registry,
                old=base,
                learning=settings.learning,
                partitions=store.partitions,
                clock=SystemClock(),
            )
