"""A predictor with 1 and with 1,000 tasks of about 256 KiB: memory, start, and answers of hot and cold tasks.

    python benchmarks/many_tasks.py [--tasks 1000] [--asked 300]

The shipped base, calibrated to full depth by random numbers; a real predictor process, the embedded broker
and store.  One client, one request at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import percentile, publish
from edgeseq_core.client import Client
from edgeseq_core.errors import RequestError, ServiceError
from edgeseq_core.keys import partition_of
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.replay.buffer import StepCommit
from edgeseq_core.replay.connection import connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import PredictorSettings, load_settings
from edgeseq_core.snapshots.manifest import (
    GateReport,
    SnapshotManifest,
    SnapshotRecord,
    payload_digest,
)
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.snapshots.registry import Offer
from edgeseq_services.embedded.ports import free_port, wait_until
from edgeseq_services.embedded.process import last_line, resident_bytes, spawn, stop
from edgeseq_services.up import Instance, up

MIB = 1 << 20
HOT, WARM_UP = "task0000", 20
ALL_BYTES = 4 << 30  # a budget that holds every task


def snapshot(base: Base) -> bytes:
    """Random numbers in a calibration of full depth, about as large as one may grow."""
    config = CalibrationConfig(rank=9, encoder_layers=base.config.encoder_layers)
    made = Calibration(base.model, base.vocabulary, config)
    made.admit(["abcdefghijklmnopqrstuvwxyz"])
    draw = torch.Generator().manual_seed(0)
    for name, tensor in made.tensors.items():
        made.tensors[name] = tensor + 0.01 * torch.randn(tensor.shape, generator=draw)
    made.tensors["row_bias"][0] = -100.0  # no answer ends early
    return made.to_payload(base.digest)


def register(instance: Instance, names: list[str], payload: bytes, base: Base) -> None:
    """Give each task a champion with these bytes, as a learner would."""
    prefix, partitions = instance.settings.redis.key_prefix, instance.settings.kafka.partitions
    with connect(instance.endpoints.redis) as client:
        store = RedisStore(client, prefix=prefix, partitions=partitions)
        registry = RedisRegistry(client, prefix=prefix, partitions=partitions)
        epochs = {n: store.acquire("learner", n) for n in range(partitions)}
        for task in names:
            epoch = epochs[partition_of(task, partitions)]
            commit = StepCommit(
                task=task, epoch=epoch, branch=0, expected_step=0, step=1,
                checkpoint=b"none", journal="{}",
            )  # fmt: skip
            store.commit(commit)
            registry.offer(_offer(task, epoch, payload, base.digest))


def _offer(task: str, epoch: int, payload: bytes, base: str) -> Offer:
    manifest = SnapshotManifest(
        task=task, base=base, parent=None, step=1, positions={},
        payload_digest=payload_digest(payload), payload_bytes=len(payload),
        checkpoint_digest="0" * 64, config={},
    )  # fmt: skip
    gate = GateReport(verdict="promote", reasons=("benchmark",))
    now_ms = time.time_ns() // 1_000_000
    record = SnapshotRecord(manifest=manifest, gate=gate, created_ms=now_ms)
    return Offer(
        task=task, epoch=epoch, branch=0, record=record, payload=payload,
        expected_champion=None, journal='{"kind": "gate"}',
    )  # fmt: skip


class Predictor:
    """A predictor process, ready; ``start_s`` is how long that took."""

    def __init__(self, instance: Instance, log: Path, budget_bytes: int) -> None:
        own = {"max_tokens": 12, "tasks_budget_bytes": budget_bytes, "http_port": free_port()}
        self._port = own["http_port"]
        settings = instance.settings
        wanted = {name: getattr(settings, name) for name in ("base", "kafka", "redis")}
        began_s = time.perf_counter()
        self._process = spawn(
            [sys.executable, "-P", "-m", "edgeseq_services.predictor"],
            log=log,
            env={"OMP_NUM_THREADS": "1", **load_settings(**wanted, predictor=own).as_environment()},
        )
        started = wait_until(
            self._is_ready, timeout_s=120, alive=lambda: self._process.poll() is None
        )
        if not started:
            raise ServiceError(f"the predictor did not start: {last_line(log)}")
        self.start_s = time.perf_counter() - began_s

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._url("readyz"), timeout=5):
                return True
        except OSError:
            return False

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}/{path}"

    def metric(self, name: str) -> float:
        """A sample of its metrics; raises KeyError."""
        with urllib.request.urlopen(self._url("metrics"), timeout=5) as answer:
            samples = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
        return float(samples[name])

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        return resident_bytes(self._process.pid)

    def stop(self) -> None:
        """Drain and end."""
        stop(self._process, grace_s=20)


def ask(client: Client, task: str | None, at: int) -> float:
    """Milliseconds from request to reply."""
    began_s = time.perf_counter()
    try:
        client.predict(task, f"Wortstamm {at % 90:02d}", timeout_s=60)
    except RequestError as error:
        if error.code != "missing_task":  # the tasks here were taught nothing: none is near
            raise
    return 1_000 * (time.perf_counter() - began_s)


def row(
    instance: Instance, folder: Path, names: list[str], asked: int, budget_bytes: int
) -> dict[str, object]:
    """Start a predictor, ask it, and look at it."""
    made = Predictor(instance, folder / "predictor.log", budget_bytes)
    try:
        with Client(instance.endpoints.kafka) as client:
            started_bytes = made.resident_bytes()
            hot = [ask(client, HOT, at) for at in range(WARM_UP + asked)][WARM_UP:]
            nameless = [ask(client, None, 0) for _ in range(2)]
            before = made.metric("edgeseq_predictor_cold_load_seconds_count")
            others = [ask(client, task, 0) for task in names[1:][-asked:]]
            loads = made.metric("edgeseq_predictor_cold_load_seconds_count") - before
            seconds = made.metric("edgeseq_predictor_cold_load_seconds_sum")
            return {
                "tasks": len(names),
                "budget (MiB)": f"{budget_bytes / MIB:g}" if budget_bytes < ALL_BYTES else "all",
                "ready after (s)": made.start_s,
                "resident at the start (MiB)": started_bytes / MIB,
                "after all requests (MiB)": made.resident_bytes() / MIB,
                "tasks held": int(made.metric('edgeseq_predictor_tasks{state="resident"}')),
                "their bytes (MiB)": made.metric("edgeseq_predictor_resident_bytes") / MIB,
                "hot: p50, p95 (ms)": _two(hot),
                "other tasks: p50, p95 (ms)": _two(others) if others else "",
                "of them loaded": int(loads),
                "a load (ms)": 1_000 * seconds / loads if loads else "",
                "no task named: first, next (ms)": ", ".join(f"{ms:.0f}" for ms in nameless),
            }
    finally:
        made.stop()


def _two(values: list[float]) -> str:
    return f"{percentile(values, 0.5):.1f}, {percentile(values, 0.95):.1f}"


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--asked", type=int, default=300)
    args = parser.parse_args()
    base, default_bytes = Base.load(None), PredictorSettings().tasks_budget_bytes
    payload = snapshot(base)
    names = [f"task{at:04d}" for at in range(args.tasks)]
    rows = []
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with up(folder / "state", services=()) as instance:
            register(instance, names[:1], payload, base)
            rows.append(row(instance, folder, names[:1], args.asked, default_bytes))
            register(instance, names[1:], payload, base)
            for budget_bytes in (default_bytes, ALL_BYTES):
                rows.append(row(instance, folder, names, args.asked, budget_bytes))
    publish(
        "many-tasks",
        f"python benchmarks/many_tasks.py --tasks {args.tasks} --asked {args.asked}",
        rows,
        f"Shipped base, native engine, a snapshot of {len(payload) / 1024:.0f} KiB a task, answers of 12 "
        "tokens, embedded broker and store on this machine; one request at a time, client's wall time. "
        "`hot`: one task asked again and again; `other tasks`: each asked once, those registered last; "
        "`a load`: from the request's arrival to the task being in memory. A request that names no task "
        "needs the place of every task, which the first one reads. With a budget of `all`, a predictor "
        "does what it did before there was one.",
    )


if __name__ == "__main__":
    main()
