"""One run of the consolidator: train and judge while the learner runs on, then publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog
import torch

from edgeseq_core.clock import SystemClock
from edgeseq_core.errors import ConfigError, EdgeSeqError
from edgeseq_core.learn.consolidate import Outcome, consolidate, publish
from edgeseq_core.learn.consolidation import ConsolidationSettings
from edgeseq_core.learn.consolidation_tasks import kept_tasks
from edgeseq_core.model.base import Base
from edgeseq_core.settings import Settings
from edgeseq_core.telemetry.metrics import ConsolidatorMetrics

from .cli.store import Store
from .handover import GaveWay, Handover, finish, wait_for_grant

LOOK_UP_S = 0.5

log = structlog.get_logger(__name__)


class LookUp(Protocol):
    """Raises GaveWay when something else comes first; ``pairs``: also where pairs wait."""

    def __call__(self, *, pairs: bool = True) -> None: ...


class ConsolidationRun:
    """From the tasks as the store has them to a base that serves, or none."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        handover: Handover,
        metrics: ConsolidatorMetrics,
        *,
        look_up: LookUp,
    ) -> None:
        self._store, self._settings, self._handover = store, settings, handover
        self._to, self._look_up = metrics, look_up

    def run(self) -> str:
        """Returns ``published`` or ``refused``; raises GaveWay, and ConfigError as `kept_tasks` does."""
        torch.set_num_threads(1)
        store, base = self._store, Base.load(self._settings.base.path)
        tasks = kept_tasks(
            store.buffer, store.registry, base, partitions=store.partitions, take=False
        )
        cpu_s = self._settings.consolidator.cpu_s
        self._to.running_tasks.set(len(tasks))
        log.info("consolidation_begins", tasks=len(tasks), cpu_s=cpu_s)
        out = self._handover.folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.safetensors"
        outcome = consolidate(
            tasks,
            base,
            out,
            settings=ConsolidationSettings(cpu_s=cpu_s),
            learning=self._settings.learning,
            clock=looking_up(self._look_up),
        )
        scores = outcome.trials[-1].scores
        gain = sum(score.after - score.before for score in scores) / len(scores)
        self._to.gain_ratio.set(gain / 100)
        log.info("consolidation_judged", steps=outcome.steps, gain_points=round(gain, 2))
        if outcome.made is None:
            log.info("consolidation_refused", reasons=list(outcome.trials[-1].refused))
            return "refused"
        self._publish(outcome, base, out)
        return "published"

    def _publish(self, outcome: Outcome, base: Base, out: Path) -> None:
        """Consumer and learner stop for it; whatever happens, the store ends on one base."""
        assert outcome.made is not None
        asked, began = self._handover.ask(self._settings.base.path, out), time.monotonic()
        try:
            wait_for_grant(self._handover, partial(self._look_up, pairs=False))
            for change in publish(
                outcome.made,
                self._store.buffer,
                self._store.registry,
                old=base,
                learning=self._settings.learning,
                partitions=self._store.partitions,
                clock=SystemClock(),
            ):
                log.info("task_published", **asdict(change))
        except ConfigError as error:  # a task has learnt since
            finish(asked, self._store)
            raise GaveWay(str(error)) from error
        except (GaveWay, EdgeSeqError):
            finish(asked, self._store)
            raise
        finally:
            self._handover.done()
        log.info("base_published", base=out.name, held_s=round(time.monotonic() - began, 2))


def looking_up(look_up: LookUp) -> Callable[[], float]:
    """A clock of this process' CPU-seconds that also looks up, a few times a second."""
    looked = 0.0

    def clock() -> float:
        nonlocal looked
        if time.monotonic() - looked >= LOOK_UP_S:
            look_up()
            looked = time.monotonic()
        return time.process_time()

    return clock
