"""The learner service: fresh pairs in Redis to gated snapshots.

Run it as ``python -m edgeseq_services.learner``.
"""

from __future__ import annotations

import sys
import time

import structlog

from edgeseq_core.clock import SystemClock
from edgeseq_core.errors import ConfigError, MissingExtraError
from edgeseq_core.native import learning
from edgeseq_core.native.engine import why_not
from edgeseq_core.replay.buffer import PARTS
from edgeseq_core.replay.connection import check_policy, check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import Settings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.telemetry.metrics import LearnerMetrics

from .runtime import Context, run_service

try:
    import torch

    from edgeseq_core.learn.loop import LearnerLoop, Turn
    from edgeseq_core.learn.signals import LOSS
    from edgeseq_core.model.base import Base
except ImportError as error:
    raise MissingExtraError(
        f"{error.name}, which the learner computes with,", 'install "edgeseq[learner]"'
    ) from error

IDLE_S = 0.02  # between looks at an empty fresh part
LOOK_S = 2.0  # between looks at the buffer's sizes, and at who owns the partitions

log = structlog.get_logger(__name__)


class MeteredTurns:
    """What the learner does, as Prometheus metrics and log lines (ids and numbers only)."""

    def __init__(self, metrics: LearnerMetrics) -> None:
        self._to = metrics

    def stage(self, task: str, stage: str, seconds: float) -> None:
        """Observe how long a stage of a turn took."""
        self._to.step_seconds.labels(self._to.task(task), stage).observe(seconds)

    def turn(self, turn: Turn) -> None:
        """Count a turn and show the task's scores."""
        to, task, progress = self._to, self._to.task(turn.task), turn.learner.progress
        to.pairs.labels(task).inc(turn.learnt)
        to.steps.labels(task, "skipped" if turn.step.skipped else "taken").inc()
        if turn.step.skipped:
            to.skipped_steps.labels(task, turn.step.skipped).inc()
            log.warning(
                "step_skipped", task=turn.task, step=progress.step, reason=turn.step.skipped
            )
        to.prequential_loss.labels(task).set(progress.prequential_loss)
        to.prequential_accuracy_ratio.labels(task).set(progress.prequential_exact)
        self._signals(turn)
        size = turn.learner.size()
        to.calibration_base_ratio.labels(task).set(size["percent_of_base"] / 100)
        to.calibrated_encoder_layers.labels(task).set(size["encoder_layers"])
        if turn.step.grown:
            log.info(
                "calibration_grew", task=turn.task, step=progress.step, why=turn.step.grown, **size
            )
        if turn.gate is None:
            return
        report = turn.gate.report
        to.gate.labels(task, report.verdict).inc()
        shown = report.candidate if turn.gate.serves else report.champion
        for name in ("recent", "probe"):
            if score := shown.get(name):
                to.held_out_loss.labels(task, name).set(score.loss)
                to.held_out_accuracy_ratio.labels(task, name).set(score.exact / score.pairs)
        log.info(
            "gate",
            task=turn.task,
            snapshot=turn.gate.snapshot_id,
            verdict=report.verdict,
            serves=turn.gate.serves,
            reasons=report.reasons,
        )

    def _signals(self, turn: Turn) -> None:
        """What the drift detectors say; the loss makes the task adapt, the others only report."""
        to, task, learner = self._to, self._to.task(turn.task), turn.learner
        for signal, statistic in learner.statistics.items():
            to.drift_statistic.labels(task, signal).set(statistic)
            to.drift_alarms.labels(task, signal)  # shown as 0 before the first
        for signal, since in learner.changed_since.items():
            to.drift_since_pairs.labels(task, signal).set(since)
        to.drift_flag.labels(task).set(turn.drifted)
        step = learner.progress.step
        if turn.step.drift:
            to.drifts.labels(task).inc()
            to.drift_alarms.labels(task, LOSS).inc()
            log.warning("drift", task=turn.task, step=step, signal=LOSS)
        for signal, ago in turn.step.changed.items():
            to.drift_alarms.labels(task, signal).inc()
            log.warning(
                "signal_changed",
                task=turn.task,
                step=step,
                signal=signal,
                pairs_ago=ago,
                mean=round(learner.statistics[signal], 4),
            )


class LearnerService:
    """Wires the loop of the core to settings, Redis and metrics."""

    def __init__(self, settings: Settings, metrics: LearnerMetrics) -> None:
        torch.set_num_threads(settings.learner.threads)
        redis, count = settings.redis, settings.kafka.partitions
        self._partitions = settings.learner.partitions or tuple(range(count))
        if max(self._partitions) >= count:
            raise ConfigError(
                f"learner.partitions names {max(self._partitions)}, but there are only {count}: "
                "correct it or kafka.partitions"
            )
        base = Base.load(settings.base.path)
        reason = why_not(base.config)
        if reason and settings.predictor.engine == "auto":
            log.warning("PyTorch scores for the gate: the native engine cannot", reason=reason)
        reason = learning.why_not(base.config)
        if reason and settings.learning.engine == "auto":
            log.warning("PyTorch computes the steps: the native engine cannot", reason=reason)
        self._client = connect(redis.url)
        check_policy(self._client, redis.declared_policy)
        check_store(self._client, prefix=redis.key_prefix, partitions=count)
        self._store = RedisStore(self._client, prefix=redis.key_prefix, partitions=count)
        registry = RedisRegistry(self._client, prefix=redis.key_prefix, partitions=count)
        self._metrics, self._meter = metrics, MeteredTurns(metrics)
        self._loop = LearnerLoop(
            self._store,
            registry,
            base,
            settings.learning,
            partitions=self._partitions,
            partition_count=count,
            clock=SystemClock(),
            observer=self._meter,
            engine=settings.predictor.engine,
        )
        self._next_look = 0.0

    def run_once(self) -> None:
        """One turn, or a short wait where there is nothing to learn."""
        if time.monotonic() >= self._next_look:
            self._loop.look()  # one that idles would not notice that it has been replaced
            self._show_gauges()
            self._next_look = time.monotonic() + LOOK_S
        turn = self._loop.run_once()
        if turn is None:
            time.sleep(IDLE_S)
        else:
            self._meter.turn(turn)

    def _show_gauges(self) -> None:
        to, now_ms = self._metrics, time.time() * 1_000
        for task, (corrections, bulk) in self._loop.waiting(known=True).items():
            label = to.task(task)
            to.waiting_pairs.labels(label).set(corrections + bulk)
            oldest = self._loop.oldest_ms(task) if corrections + bulk else None
            to.waiting_age_seconds.labels(label).set(
                max(0.0, now_ms - oldest) / 1_000 if oldest else 0
            )
            stats = self._store.stats(task)
            for part in PARTS:
                to.buffer_bytes.labels(label, part).set(stats.bytes[part])
                to.buffer_pairs.labels(label, part).set(stats.pairs[part])

    def drain(self) -> None:
        """Nothing is pending between turns: what was learnt is committed."""
        self._client.close()


def build(context: Context) -> LearnerService:
    """The service, for `runtime.run_service`."""
    return LearnerService(context.settings, LearnerMetrics(context.registry))


def main() -> None:
    """Run until told to stop."""
    sys.exit(run_service("learner", build))


if __name__ == "__main__":
    main()
