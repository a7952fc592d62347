"""What the demo reads beside the client: the store's counts and the learner's metrics."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from edgeseq_core.replay.connection import connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import Settings
from edgeseq_core.snapshots.manifest import payload_digest
from edgeseq_core.snapshots.redis_registry import RedisRegistry

TIMEOUT_S = 2.0
PREFIX = "edgeseq_learner_"


@dataclass
class LearnerView:
    """A task as the learner's metrics show it."""

    prequential: float | None = None
    promoted: int = 0
    held: int = 0
    drifts: int = 0
    drift_flag: bool = False


def read_metrics(text: str) -> dict[str, LearnerView]:
    """By task; from the text of the learner's /metrics."""
    views: dict[str, LearnerView] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            task = sample.labels.get("task")
            if task is None:
                continue
            view = views.setdefault(task, LearnerView())
            match sample.name.removeprefix(PREFIX):
                case "prequential_accuracy_ratio":
                    view.prequential = sample.value
                case "gate_total" if sample.labels["verdict"] == "promote":
                    view.promoted = int(sample.value)
                case "gate_total":
                    view.held = int(sample.value)
                case "drifts_total":
                    view.drifts = int(sample.value)
                case "drift_flag":
                    view.drift_flag = bool(sample.value)
    return views


def learner_views(settings: Settings) -> dict[str, LearnerView]:
    """The same, asked of the running learner; empty when it does not answer."""
    url = f"http://{settings.http.host}:{settings.learner.http_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return read_metrics(answer.read().decode())
    except (OSError, ValueError):
        return {}


@dataclass(frozen=True)
class Served:
    """A champion and the digest of its bytes, computed from the bytes."""

    snapshot_id: str
    payload_digest: str


class StoreView:
    """Counts and champions of the tasks; used by one thread."""

    def __init__(self, settings: Settings) -> None:
        redis, count = settings.redis, settings.kafka.partitions
        self._client = connect(redis.url)
        self._store = RedisStore(self._client, prefix=redis.key_prefix, partitions=count)
        self._registry = RedisRegistry(self._client, prefix=redis.key_prefix, partitions=count)
        self._rehearsals = settings.learning.rehearsals_per_step

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def taken(self, task: str) -> int:
        """Pairs that no longer wait: trained, held out, shed or forgotten."""
        stats = self._store.stats(task)
        held_out = stats.pairs.get("recent", 0) + stats.pairs.get("probe", 0)
        return stats.learnt + held_out + stats.shed + stats.forgotten

    def waiting(self, task: str) -> int:
        """Pairs in the fresh part."""
        pairs = self._store.stats(task).pairs
        return pairs.get("corrections", 0) + pairs.get("bulk", 0)

    def journal_length(self, task: str) -> int:
        """How many lines the task's journal has."""
        return len(self._store.journal(task))

    def is_settled(self, task: str, *, after: int) -> bool:
        """Whether the learner is through with all it has, its rehearsals and their gate included."""
        return settled(self._store.journal(task, after=after), self._rehearsals)

    def served(self, task: str) -> Served | None:
        """The champion; None when there is none."""
        champion = self._registry.status(task).champion
        if champion is None:
            return None
        payload = self._registry.payload(self._registry.record(task, champion).manifest)
        return Served(champion, payload_digest(payload))


def settled(journal: list[str], rehearsals: int) -> bool:
    """Whether the journal ends with a gate's verdict after so many steps without fresh pairs.

    >>> fresh, rehearsal = ('{"kind": "step", "bulk": ["k"]}', '{"kind": "step", "bulk": []}')
    >>> gate = '{"kind": "gate"}'
    >>> settled([fresh, gate, rehearsal, gate], 1), settled([fresh, gate], 1), settled([], 1)
    (True, False, False)
    """
    kinds = []
    for line in journal:
        entry = json.loads(line)
        if entry["kind"] == "gate":
            kinds.append("gate")
        elif entry["kind"] == "step":
            fresh = entry.get("bulk") or entry.get("corrections")
            kinds.append("fresh" if fresh else "rehearsal")
    if not kinds or kinds[-1] != "gate":
        return False
    since = kinds[len(kinds) - kinds[::-1].index("fresh") :] if "fresh" in kinds else kinds
    return since.count("rehearsal") >= rehearsals
