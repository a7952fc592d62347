"""The consolidator service: a better base once the tasks have stopped getting better, without being asked.

`edgeseq up` runs it as ``python -m edgeseq_services.consolidator`` where ``consolidator.automatic`` is on.
It trains at the lowest priority while nothing is learnt, and gives way as soon as a pair waits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from functools import partial

import structlog

from edgeseq_core.clock import SystemClock
from edgeseq_core.errors import ConfigError, EdgeSeqError
from edgeseq_core.learn.consolidation_due import Last, flat_tasks, learnt, too_few, too_soon
from edgeseq_core.replay.connection import check_policy, check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.telemetry.metrics import ConsolidatorMetrics

from .cli.extras import learner_extra
from .cli.store import Store
from .handover import GaveWay, Handover, finish, wait_for_grant
from .runtime import MAIN_LOOP, Context, run_service

NICE = 19
IDLE_S = 1.0  # between looks
MOST_QUIET_S = 3_600.0  # asked for after it has given way again and again
STALL_S = 600.0  # judging many tasks takes a while between two beats

log = structlog.get_logger(__name__)


class ConsolidatorService:
    """Looks whether a consolidation is due, and does it."""

    def __init__(self, context: Context) -> None:
        self._context, self._settings = context, context.settings
        self._mine = context.settings.consolidator
        if self._mine.folder is None:
            raise ConfigError("the consolidator has no folder: start it by `edgeseq up`")
        self._mine.folder.mkdir(parents=True, exist_ok=True)
        self._handover = Handover(self._mine.folder)
        self._to = ConsolidatorMetrics(context.registry)
        redis, count = context.settings.redis, context.settings.kafka.partitions
        self._client = connect(redis.url)
        check_policy(self._client, redis.declared_policy)
        check_store(self._client, prefix=redis.key_prefix, partitions=count)
        self._store = Store(
            RedisStore(self._client, prefix=redis.key_prefix, partitions=count),
            RedisRegistry(self._client, prefix=redis.key_prefix, partitions=count),
            count,
        )
        self._clock = SystemClock()
        self._quiet_since, self._quiet_at, self._quiet_s = time.monotonic(), -1, self._mine.quiet_s
        self._seen = -1  # pairs learnt when plateaus were looked for last
        self._to.judged_timestamp_seconds.set(self._last().at_ms / 1_000)
        os.nice(NICE)

    def run_once(self) -> None:
        """One look; a whole consolidation where one is due."""
        pending = self._handover.pending
        if pending is not None:  # it was killed while it published
            wait_for_grant(self._handover, partial(self._look_up, pairs=False))
            finish(pending, self._store)
            self._handover.done()
        elif not self._due():
            self._context.stopping.wait(IDLE_S)
        else:
            self._consolidate()

    def drain(self) -> None:
        """What it had not published is gone; the store knows nothing of it."""
        self._client.close()

    # --- when ------------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Cheap questions first: plateaus are read only where all else is well."""
        now = time.monotonic()
        if self._waiting():
            self._quiet_since = now
            return False
        if now - self._quiet_since < self._quiet_s:
            return False
        count = learnt(self._store.buffer, self._store.partitions)
        if count != self._quiet_at:  # some came and were learnt between two looks
            self._quiet_at, self._quiet_since = count, now
            return False
        why = too_soon(self._last(), self._mine, now_ms=self._clock.wall_ms(), learnt=count)
        if not why and count == self._seen:
            return False
        if not why:
            self._seen = count
            where = (self._store.buffer, self._store.registry, self._store.partitions)
            flat = flat_tasks(*where, looks=self._mine.flat_looks)
            self._to.flat_tasks.set(len(flat))
            if why := too_few(flat, self._mine):
                log.info("consolidation_not_due", reason=why)
        self._quiet_since = now  # the next look in as long again
        return not why

    def _waiting(self) -> bool:
        found = (self._store.buffer.waiting(p) for p in range(self._store.partitions))
        return any(sum(counts) for waiting in found for counts in waiting.values())

    def _last(self) -> Last:
        file = self._handover.folder / "last.json"
        return Last(**json.loads(file.read_text())) if file.exists() else Last()

    def _judged(self) -> None:
        """Note that a base was judged; the next one is so many hours away."""
        last = Last(self._clock.wall_ms(), self._quiet_at)
        scratch = self._handover.folder / "last.new"
        scratch.write_text(json.dumps(asdict(last)))
        scratch.replace(self._handover.folder / "last.json")
        self._to.judged_timestamp_seconds.set(last.at_ms / 1_000)

    # --- what ------------------------------------------------------------------------------------

    def _consolidate(self) -> None:
        """One run; all that went wrong is told, and a later one begins anew."""
        with learner_extra():
            from .consolidation_run import ConsolidationRun
        outcome, began = "failed", time.process_time()
        try:
            run = ConsolidationRun(
                self._store, self._settings, self._handover, self._to, look_up=self._look_up
            )
            outcome = run.run()
            self._judged()
            self._quiet_s = self._mine.quiet_s
        except GaveWay as error:
            outcome, self._seen = "gave_way", -1
            self._quiet_s = min(2 * max(self._quiet_s, IDLE_S), MOST_QUIET_S)
            log.info("consolidation_gave_way", reason=str(error))
        except EdgeSeqError as error:
            if error.retryable:
                raise
            log.warning("consolidation_failed", reason=str(error))
        finally:
            self._to.runs.labels(outcome).inc()
            self._to.cpu_seconds.inc(time.process_time() - began)
            self._to.running_tasks.set(0)
            self._quiet_since = time.monotonic()
        log.info("consolidation_ended", outcome=outcome, quiet_s=self._quiet_s)

    def _look_up(self, *, pairs: bool = True) -> None:
        """It is alive; raises GaveWay when the service is to stop, or pairs wait."""
        self._context.health.beat(MAIN_LOOP)
        if self._context.stopping.is_set():
            raise GaveWay("the service stops")
        if pairs and self._waiting():
            raise GaveWay("pairs wait to be learnt")


def build(context: Context) -> ConsolidatorService:
    """The service, for `runtime.run_service`."""
    return ConsolidatorService(context)


def main() -> None:
    """Run until told to stop."""
    sys.exit(run_service("consolidator", build, stall_limit_s=STALL_S))


if __name__ == "__main__":
    main()
