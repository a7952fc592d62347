"""Every metric, one class a service, each on a registry that the caller owns.

Names are ``edgeseq_<part>_<what>_<unit>[_total]`` in base units.  Labels are bounded: a task's
label comes from ``metrics.task(name)``, which knows the first 100 tasks and calls the rest "other".
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from edgeseq_core import __version__

MAX_TASK_LABELS = 100
OTHER_TASKS = "other"

_MILLISECONDS_TO_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_FRESHNESS_S = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0, 60.0, 300.0)
_BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64)


class TaskLabels:
    """Bounds the label ``task``; thread-safe.

    >>> label = TaskLabels(limit=1)
    >>> label("dates"), label("verbs"), label("dates")
    ('dates', 'other', 'dates')
    """

    def __init__(self, *, limit: int = MAX_TASK_LABELS) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, task: str) -> str:
        """The label of a task."""
        with self._lock:
            if task not in self._known:
                if len(self._known) >= self._limit:
                    return OTHER_TASKS
                self._known.add(task)
        return task


class _Metrics:
    """What every service's metrics share; ``part`` is the service's name in metric names."""

    part = ""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.task = TaskLabels()
        info = Info("edgeseq_service", "Which service this is, and its version.", registry=registry)
        info.info({"service": self.part, "version": __version__})

    def _counter(self, what: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"edgeseq_{self.part}_{what}", help_text, labels, registry=self.registry)

    def _gauge(self, what: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"edgeseq_{self.part}_{what}", help_text, labels, registry=self.registry)

    def _histogram(
        self,
        what: str,
        help_text: str,
        *labels: str,
        buckets: Sequence[float] = _MILLISECONDS_TO_SECONDS,
    ) -> Histogram:
        return Histogram(
            f"edgeseq_{self.part}_{what}",
            help_text,
            labels,
            registry=self.registry,
            buckets=buckets,
        )


class ConsumerMetrics(_Metrics):
    """Kafka to the fresh part."""

    part = "consumer"

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.pairs = self._counter(
            "pairs_total", "Pairs by what became of them.", "task", "outcome"
        )
        self.dead_letters = self._counter(
            "dead_letters_total", "Records sent to the dead-letter topic.", "reason"
        )
        self.lag_pairs = self._gauge(
            "lag_pairs", "Records of a partition not yet consumed.", "topic", "partition"
        )
        self.paused_partitions = self._gauge(
            "paused_partitions", "Partitions paused because the fresh part is over its budget."
        )
        self.log_resets = self._counter(
            "log_resets_total", "Logs found re-created or truncated.", "topic"
        )
        self.batch_seconds = self._histogram(
            "batch_seconds", "Time to store one partition's batch."
        )
        self.control = self._counter(
            "control_total", "Control messages applied.", "action", "outcome"
        )


class LearnerMetrics(_Metrics):
    """Fresh part to snapshots."""

    part = "learner"

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.pairs = self._counter("pairs_total", "Pairs trained on.", "task")
        self.steps = self._counter("steps_total", "Learner steps.", "task", "outcome")
        self.step_seconds = self._histogram(
            "step_seconds", "Time of a step's stages: draw, train, commit, gate.", "task", "stage"
        )
        self.prequential_loss = self._gauge(
            "prequential_loss", "Recent loss before training, nats a token.", "task"
        )
        self.prequential_accuracy_ratio = self._gauge(
            "prequential_accuracy_ratio", "Recent exact answers before training, 0 to 1.", "task"
        )
        self.held_out_loss = self._gauge(
            "held_out_loss", "The champion's loss on held-out pairs, nats a token.", "task", "set"
        )
        self.held_out_accuracy_ratio = self._gauge(
            "held_out_accuracy_ratio",
            "The champion's exact answers on held-out pairs.",
            "task",
            "set",
        )
        self.drift_statistic = self._gauge(
            "drift_statistic", "Mean of a signal in its detector's window.", "task", "signal"
        )
        self.drift_since_pairs = self._gauge(
            "drift_since_pairs",
            "Pairs scored since a signal's last change began; missing while it never changed.",
            "task",
            "signal",
        )
        self.drift_alarms = self._counter(
            "drift_alarms_total", "Changes of a signal detected.", "task", "signal"
        )
        self.drift_flag = self._gauge("drift_flag", "1 while a drift is recent.", "task")
        self.drifts = self._counter("drifts_total", "Drifts that a task adapts to.", "task")
        self.calibration_base_ratio = self._gauge(
            "calibration_base_ratio",
            "A task's calibration as a share of the base, in numbers.",
            "task",
        )
        self.calibrated_encoder_layers = self._gauge(
            "calibrated_encoder_layers", "Encoder layers that a task's calibration changes.", "task"
        )
        self.gate = self._counter(
            "gate_total", "Candidates by the gate's verdict.", "task", "verdict"
        )
        self.waiting_pairs = self._gauge("waiting_pairs", "Fresh pairs not yet trained.", "task")
        self.waiting_age_seconds = self._gauge(
            "waiting_age_seconds", "Age of the oldest fresh pair.", "task"
        )
        self.buffer_bytes = self._gauge("buffer_bytes", "Bytes of a part.", "task", "part")
        self.buffer_pairs = self._gauge("buffer_pairs", "Pairs of a part.", "task", "part")
        self.skipped_steps = self._counter(
            "skipped_steps_total", "Steps not taken, by reason.", "task", "reason"
        )


class ConsolidatorMetrics(_Metrics):
    """Bases that are consolidated without being asked."""

    part = "consolidator"

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.runs = self._counter(
            "runs_total", "Consolidations: published, refused, gave_way or failed.", "outcome"
        )
        self.cpu_seconds = self._counter("cpu_seconds_total", "CPU time of all consolidations.")
        self.flat_tasks = self._gauge(
            "flat_tasks", "Tasks that had stopped getting better when it last looked."
        )
        self.running_tasks = self._gauge(
            "running_tasks", "Tasks of the consolidation that runs now; 0 while none does."
        )
        self.judged_timestamp_seconds = self._gauge(
            "judged_timestamp_seconds", "When a base was last judged (Unix time); 0: never."
        )
        self.gain_ratio = self._gauge(
            "gain_ratio",
            "Held-out exact answers, mean of the tasks: the base last judged minus the one before.",
        )


class PredictorMetrics(_Metrics):
    """Requests to replies."""

    part = "predictor"

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.requests = self._counter("requests_total", "Requests by outcome.", "task", "outcome")
        self.latency_seconds = self._histogram(
            "latency_seconds", "Time of a request's stages: queue, compute, total.", "stage"
        )
        self.batch_rows = self._histogram("batch_rows", "Rows of a batch.", buckets=_BATCH_ROWS)
        self.queue_requests = self._gauge("queue_requests", "Requests that wait.", "priority")
        self.snapshot_age_seconds = self._gauge(
            "snapshot_age_seconds", "Time since the serving snapshot was promoted.", "task"
        )
        self.swaps = self._counter("swaps_total", "Snapshots swapped in.", "task")
        self.swap_failures = self._counter(
            "swap_failures_total", "Champions that could not be loaded.", "task"
        )
        self.tasks = self._gauge(
            "tasks", "Served tasks: resident, or cold and loaded when they are asked for.", "state"
        )
        self.resident_bytes = self._gauge("resident_bytes", "Memory of the resident tasks.")
        self.cold_load_seconds = self._histogram(
            "cold_load_seconds", "Time from asking for a cold task to its being resident."
        )
        self.cold_load_failures = self._counter(
            "cold_load_failures_total", "Cold tasks that were asked for and could not be loaded."
        )
        self.dead_letters = self._counter(
            "dead_letters_total", "Records sent to the dead-letter topic.", "reason"
        )
        self.uncached_replies = self._counter(
            "uncached_replies_total", "Replies that the shared reply cache did not take."
        )
        self.freshness_seconds = self._histogram(
            "freshness_seconds",
            "Arrival of a pair to its snapshot being served.",
            "task",
            buckets=_FRESHNESS_S,
        )
        self.abstained = self._counter("abstained_total", "Replies that abstained.", "task")
