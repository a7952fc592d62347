"""The state of every task, read from the store and from the learner's metrics."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass, field

from edgeseq_core.settings import Settings

from .store import Store, open_store

TIMEOUT_S = 1.0
PARTS = ("corrections", "bulk", "recent", "probe", "reservoir")
DRIFT = "edgeseq_learner_drift_"
LOSS = "loss"  # among the signals, the one that makes a task adapt
RECENT_PAIRS = 300  # scored since a signal changed


@dataclass
class Drift:
    """What a task's drift detectors say, as the learner publishes it."""

    flag: bool = False  # the loss has risen, and the task adapts, or did so just now
    statistic: dict[str, float] = field(default_factory=dict)  # signal -> mean of its window
    since_pairs: dict[str, int] = field(default_factory=dict)  # signal -> since its last change

    @property
    def recent(self) -> list[str]:
        """Signals that changed a short while ago; the loss is told by the flag."""
        return [s for s, n in self.since_pairs.items() if n < RECENT_PAIRS and s != LOSS]


@dataclass(frozen=True, kw_only=True)
class TaskOverview:
    """One task: what waits, what it has learnt, who serves it, and what the gate last said."""

    task: str
    waiting_corrections: int
    waiting_bulk: int
    buffer_pairs: dict[str, int]  # by part
    buffer_bytes: int
    remembered: int  # corrected sources that are answered from memory
    learnt: int
    shed: int
    champion: str | None
    pinned: bool
    verdict: str | None
    reasons: tuple[str, ...]
    percent_of_base: float | None  # numbers that the newest snapshot adds to it
    drift: Drift | None  # None when the learner tells nothing
    relearning: bool  # it began anew, and nothing was offered since


def overview(settings: Settings) -> list[TaskOverview]:
    """All registered tasks, by name."""
    drifts = _drifts(settings)
    with open_store(settings) as store:
        found = [
            _task(store, task, waiting.get(task, (0, 0)), drifts.get(task), anew=task in anew)
            for partition in range(store.partitions)
            for waiting in (store.buffer.waiting(partition),)
            for anew in (store.registry.relearning([partition]),)
            for task in store.buffer.tasks(partition)
        ]
    return sorted(found, key=lambda one: one.task)


def _task(
    store: Store,
    task: str,
    waiting: tuple[int, int],
    drift: Drift | None,
    *,
    anew: bool,
) -> TaskOverview:
    stats, status = store.buffer.stats(task), store.registry.status(task)
    newest = store.registry.history(task, last=1)
    gate = newest[0].gate if newest else None
    size = newest[0].manifest.config.get("calibration", {}) if newest else {}
    return TaskOverview(
        task=task,
        waiting_corrections=waiting[0],
        waiting_bulk=waiting[1],
        buffer_pairs={part: stats.pairs.get(part, 0) for part in PARTS},  # type: ignore[call-overload]
        buffer_bytes=sum(stats.bytes.values()),
        remembered=stats.remembered,
        learnt=stats.learnt,
        shed=stats.shed,
        champion=status.champion,
        pinned=status.pinned,
        verdict=gate.verdict if gate else None,
        reasons=gate.reasons if gate else (),
        percent_of_base=size.get("percent_of_base"),
        drift=drift,
        relearning=anew,
    )


def _drifts(settings: Settings) -> dict[str, Drift]:
    """The drift detectors' state by task; empty when the learner does not answer."""
    url = f"http://{settings.http.host}:{settings.learner.http_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return read_drifts(answer.read().decode())
    except (OSError, ValueError):
        return {}


def read_drifts(text: str) -> dict[str, Drift]:
    """The same, of the text of the learner's /metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, Drift] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.startswith(DRIFT) or "task" not in sample.labels:
                continue
            drift = found.setdefault(sample.labels["task"], Drift())
            match sample.name.removeprefix(DRIFT):
                case "flag":
                    drift.flag = bool(sample.value)
                case "statistic":
                    drift.statistic[sample.labels["signal"]] = sample.value
                case "since_pairs":
                    drift.since_pairs[sample.labels["signal"]] = int(sample.value)
    return found
