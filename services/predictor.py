"""The predictor service: requests from Kafka, answers from the engine, snapshots from Redis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import structlog

from edgeseq_core.clock import SystemClock
from edgeseq_core.engine import Engine
from edgeseq_core.errors import MissingExtraError
from edgeseq_core.messages import Priority
from edgeseq_core.model.base_file import read_header
from edgeseq_core.native.engine import NativeEngine, why_not
from edgeseq_core.replay.connection import check_policy, check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.serving.admission import Admission
from edgeseq_core.serving.loop import LOOPS, Parts, PredictorLoop
from edgeseq_core.serving.meter import Meter, Stage
from edgeseq_core.serving.pair_status import PairStatusReader
from edgeseq_core.serving.predictor import Predictor
from edgeseq_core.serving.recall import Recall
from edgeseq_core.serving.replies import MemoryReplyCache, RedisReplyCache, SteadyReplyCache
from edgeseq_core.serving.residents import Residents
from edgeseq_core.serving.watch import SnapshotWatch
from edgeseq_core.settings import Settings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.telemetry.metrics import OTHER_TASKS, PredictorMetrics

from .cpus import usable_cpus
from .runtime import Context, run_service

log = structlog.get_logger(__name__)

REPLY_STORE_TIMEOUT_S = 0.25  # no reply waits longer for the shared cache, or the memory
UNPACKED_BUDGET_BYTES = (
    128 << 20
)  # of tasks in fp32 and folded, by default: 18 to 45 of the shipped base
STALL_S = 30.0  # a loop that has not beaten for so long is dead
JOINING = "loading the champions and joining the group of predictors"


class PredictorService:
    """The predictor's loop as the runtime runs it."""

    def __init__(self, context: Context, engine: Engine) -> None:
        settings, health = context.settings, context.health
        self._loop = PredictorLoop(
            settings.kafka,
            settings.predictor,
            _parts(settings, engine, PrometheusMeter(PredictorMetrics(context.registry))),
            beat=health.beat,
            ready=lambda: health.ready("join"),
        )
        for loop in LOOPS:
            health.watch(loop, limit_s=STALL_S)
        health.wait_for("join", JOINING)
        self._loop.start()

    def run_once(self) -> None:
        """One poll."""
        self._loop.run_once()

    def drain(self) -> None:
        """Finish what was accepted, commit, close."""
        self._loop.drain()


def _parts(settings: Settings, engine: Engine, meter: Meter) -> Parts:
    clock, redis, own = SystemClock(), settings.redis, settings.predictor
    partitions = settings.kafka.partitions
    client = connect(redis.url)
    check_policy(client, redis.declared_policy)
    check_store(client, prefix=redis.key_prefix, partitions=partitions)
    store = RedisStore(client, prefix=redis.key_prefix, partitions=partitions)
    registry = RedisRegistry(client, prefix=redis.key_prefix, partitions=partitions)
    brief = connect(redis.url, timeout_s=REPLY_STORE_TIMEOUT_S)
    cache = SteadyReplyCache(
        RedisReplyCache(brief, redis.key_prefix, window_s=own.reply_window_s),
        MemoryReplyCache(clock, window_s=own.reply_window_s),
        clock,
        meter=meter,
    )
    residents = Residents(
        engine, budget_bytes=budget_bytes(settings, engine), clock=clock, meter=meter
    )
    watch = SnapshotWatch(
        engine,
        residents,
        registry,
        store,
        partitions=range(partitions),
        clock=clock,
        meter=meter,
    )
    recall = Recall(
        RedisStore(brief, prefix=redis.key_prefix, partitions=partitions),
        is_allowed=watch.has_memory,
        clock=clock,
    )
    admission = Admission(own.queue_limit, clock, residents)
    return Parts(
        predictor=Predictor(
            engine,
            cache=cache,
            clock=clock,
            recall=recall,
            abstain_below=watch.abstain_below,
            is_cancelled=admission.is_cancelled,
            cannot_load=watch.cannot_load,
            residents=residents,
            settings=own,
            meter=meter,
        ),
        admission=admission,
        watch=watch,
        pair_status=PairStatusReader(store, registry),
        clock=clock,
        meter=meter,
    )


def budget_bytes(settings: Settings, engine: Engine) -> int:
    """What tasks may take in memory: as set, else more where the engine needs more for each."""
    if isinstance(engine, NativeEngine) or settings.chosen("predictor", "tasks_budget_bytes"):
        return settings.predictor.tasks_budget_bytes
    return UNPACKED_BUDGET_BYTES


class PrometheusMeter(Meter):
    """What the predictor reports, as Prometheus metrics."""

    def __init__(self, metrics: PredictorMetrics) -> None:
        self._to = metrics

    def request(self, task: str | None, outcome: str) -> None:
        # A name that nobody serves takes no label: anyone can send any.
        known = task is not None and outcome not in ("unknown_task", "unsupported_source")
        label = self._to.task(task) if known and task is not None else OTHER_TASKS
        self._to.requests.labels(label, outcome).inc()
        if outcome == "abstained":
            self._to.abstained.labels(label).inc()

    def latency(self, stage: Stage, seconds: float) -> None:
        self._to.latency_seconds.labels(stage).observe(seconds)

    def batch(self, rows: int) -> None:
        self._to.batch_rows.observe(rows)

    def queue(self, depth: Mapping[Priority, int]) -> None:
        for priority, requests in depth.items():
            self._to.queue_requests.labels(priority).set(requests)

    def swap(self, task: str) -> None:
        self._to.swaps.labels(self._to.task(task)).inc()

    def swap_failed(self, task: str) -> None:
        self._to.swap_failures.labels(self._to.task(task)).inc()

    def residents(self, held: int, cold: int, held_bytes: int) -> None:
        self._to.tasks.labels("resident").set(held)
        self._to.tasks.labels("cold").set(cold)
        self._to.resident_bytes.set(held_bytes)

    def cold_load(self, seconds: float) -> None:
        self._to.cold_load_seconds.observe(seconds)

    def cold_loads_failed(self, tasks: int) -> None:
        self._to.cold_load_failures.inc(tasks)

    def snapshot_age(self, task: str, seconds: float) -> None:
        self._to.snapshot_age_seconds.labels(self._to.task(task)).set(seconds)

    def freshness(self, task: str, seconds: float) -> None:
        self._to.freshness_seconds.labels(self._to.task(task)).observe(seconds)

    def dead_letter(self, reason: str) -> None:
        self._to.dead_letters.labels(reason).inc()

    def uncached(self, replies: int) -> None:
        self._to.uncached_replies.inc(replies)


def load_engine(settings: Settings) -> Engine:
    """The engine on the configured base; raises ConfigError, SnapshotError."""
    wanted, path = settings.predictor, settings.base.path
    if wanted.engine != "torch":
        reason = why_not(read_header(path).config)
        if reason is None or wanted.engine == "native":
            instructions = wanted.instructions
            return NativeEngine(path, instructions=instructions, threads=threads(settings))
        log.warning("PyTorch serves: the native engine cannot", reason=reason)
    try:
        import torch

        from edgeseq_core.model.base import Base
        from edgeseq_core.model.torch_engine import TorchEngine
    except ImportError as error:
        raise MissingExtraError(
            "PyTorch, which the predictor computes with,", 'install "edgeseq[predictor]"'
        ) from error
    torch.set_num_threads(threads(settings))
    return TorchEngine(Base.load(path))


def threads(settings: Settings) -> int:
    """How many threads compute a batch."""
    wanted = settings.predictor.threads
    return usable_cpus() if wanted == "auto" else wanted


def main(load: Callable[[Settings], Engine] = load_engine) -> int:
    """Run the service; returns its exit code."""
    return run_service(
        "predictor", lambda context: PredictorService(context, load(context.settings))
    )


if __name__ == "__main__":
    sys.exit(main())
