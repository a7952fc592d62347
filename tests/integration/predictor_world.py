"""A predictor on a real broker and a real Redis, with the fake engine, and a client that hears all."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from edgeseq_core.keys import (
    HEADER_ID,
    HEADER_REPLY_PARTITION,
    HEADER_REPLY_TOPIC,
    Topics,
    partition_of,
)
from edgeseq_core.messages import Message, PairStatus, Reply, Request, decode, encode
from edgeseq_core.replay.buffer import StepCommit
from edgeseq_core.replay.connection import check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import Settings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.streams.topics import create_topics
from edgeseq_core.testing.engine import FakeEngine
from edgeseq_services.predictor import PredictorService
from edgeseq_services.runtime import Context
from tests.brokers import Broker
from tests.serving.examples import offer

PARTITIONS = 4
REPLY_PARTITION = 5
WAIT_S = 40.0


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = WAIT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.01)


class GatedEngine(FakeEngine):
    """The fake engine, which a test can hold before its first token."""

    def __init__(self) -> None:
        super().__init__(before_token=self._wait)
        self._open = threading.Event()
        self._open.set()
        self.busy = threading.Event()

    def _wait(self, _row: int, _step: int) -> None:
        self.busy.set()
        assert self._open.wait(WAIT_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The engine makes no token inside the block."""
        self.busy.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


@dataclass
class Heard:
    """One reply as it came over Kafka."""

    data: bytes
    at_s: float
    headers: dict[str, bytes]

    @property
    def reply(self) -> Reply:
        return decode(self.data, Reply)


class Ear:
    """Hears every reply of one partition."""

    def __init__(self, bootstrap: str, topic: str, partition: int) -> None:
        self.heard: dict[str, list[Heard]] = defaultdict(list)
        self._stop = threading.Event()
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap, fetch_max_wait_ms=5, enable_auto_commit=False
        )
        at = TopicPartition(topic, partition)
        self._consumer.assign([at])
        self._consumer.seek_to_end(at)
        self._consumer.position(at)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=50).values():
                for record in records:
                    headers = dict(record.headers)
                    name = headers[HEADER_ID].decode()
                    self.heard[name].append(Heard(record.value, time.monotonic(), headers))
        self._consumer.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class World:
    """Topics, a store and champions under random names; predictors join as a test asks."""

    def __init__(self, broker: Broker, redis_url: str, **predictor: int) -> None:
        name = f"t{secrets.token_hex(6)}"
        self.redis_url = redis_url
        self.settings = Settings.model_validate(
            {
                "kafka": {
                    "bootstrap": broker.bootstrap,
                    "topic_prefix": name,
                    "partitions": PARTITIONS,
                },
                "redis": {"url": redis_url, "key_prefix": name},
                "predictor": {"max_batch": 8, "queue_limit": 64, "http_port": 0} | predictor,
            }
        )
        self.topics = Topics(name)
        create_topics(self.settings.kafka)
        client = connect(redis_url)
        check_store(client, prefix=name, partitions=PARTITIONS)
        self.store = RedisStore(client, prefix=name, partitions=PARTITIONS)
        self.registry = RedisRegistry(client, prefix=name, partitions=PARTITIONS)
        self.epochs = {n: self.store.acquire("learner", n) for n in range(PARTITIONS)}
        self.promoted: dict[str, tuple[float, str]] = {}  # snapshot id -> begun (s), mark
        self.ear = Ear(broker.bootstrap, self.topics.replies, REPLY_PARTITION)
        self.producer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=0)
        self._running: list[Running] = []

    # --- champions --------------------------------------------------------------------------------
    def promote(self, task: str, step: int, **fields: object) -> str:
        mark = f"{task}{step}"
        epoch = self.epochs[partition_of(task, PARTITIONS)]
        champion = self.registry.status(task).champion
        one = offer(
            task,
            step,
            parent=champion,
            mark=mark,
            now_ms=time.time_ns() // 1_000_000,
            epoch=epoch,
            **fields,  # type: ignore[arg-type]
        )
        commit = StepCommit(
            task=task,
            epoch=epoch,
            branch=0,
            expected_step=self.store.state(task).step,
            step=step,
            checkpoint=b"checkpoint",
            journal="{}",
        )
        self.store.commit(commit)
        begun_s = time.monotonic()
        assert self.registry.offer(one)
        snapshot_id = one.record.manifest.snapshot_id
        self.promoted[snapshot_id] = (begun_s, mark)
        return snapshot_id

    # --- predictors -------------------------------------------------------------------------------
    def start(self, engine: FakeEngine | None = None) -> Running:
        running = Running(self.settings, engine or GatedEngine())
        self._running.append(running)
        wait_for(running.is_ready, "the predictor to be ready")
        return running

    def spawn(self, directory: Path, *, token_ms: int = 0) -> subprocess.Popen[bytes]:
        """A predictor in a process of its own; its log is ``predictor.log``."""
        own = self.settings
        env = {
            "EDGESEQ_KAFKA__BOOTSTRAP": own.kafka.bootstrap,
            "EDGESEQ_KAFKA__TOPIC_PREFIX": own.kafka.topic_prefix,
            "EDGESEQ_KAFKA__PARTITIONS": str(own.kafka.partitions),
            "EDGESEQ_REDIS__URL": own.redis.url,
            "EDGESEQ_REDIS__KEY_PREFIX": own.redis.key_prefix,
            "EDGESEQ_PREDICTOR__HTTP_PORT": "0",
            "FAKE_TOKEN_MS": str(token_ms),
            "PYTHONPATH": ":".join(path for path in sys.path if path),
        }
        with (directory / "predictor.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.integration.predictor_child"],
                env=env,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

    # --- a client ---------------------------------------------------------------------------------
    def send(
        self,
        message: Message | bytes,
        *,
        request_id: str,
        topic: str | None = None,
        partition: int | None = None,
        reply_topic: str | None = None,
        reply_partition: str = str(REPLY_PARTITION),
        extra: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        headers = [
            (HEADER_ID, request_id.encode()),
            (HEADER_REPLY_TOPIC, (reply_topic or self.topics.replies).encode()),
            (HEADER_REPLY_PARTITION, reply_partition.encode()),
            *extra,
        ]
        task = getattr(message, "task", None)
        self.producer.send(
            topic or self.topics.requests,
            value=message if isinstance(message, bytes) else encode(message),
            key=task.encode() if task else None,
            partition=partition,
            headers=headers,
        )

    def ask(self, message: Request, **where: object) -> str:
        self.send(message, request_id=message.request_id, **where)  # type: ignore[arg-type]
        return message.request_id

    def replies(self, *request_ids: str, timeout_s: float = WAIT_S) -> list[Reply]:
        """The first reply to each id."""
        wait_for(
            lambda: all(name in self.ear.heard for name in request_ids),
            "replies",
            timeout_s=timeout_s,
        )
        return [self.ear.heard[name][0].reply for name in request_ids]

    def codes(self, *request_ids: str) -> list[str | None]:
        return [r.error.code if r.error else None for r in self.replies(*request_ids)]

    def pair_status(self, request_id: str) -> PairStatus:
        wait_for(lambda: request_id in self.ear.heard, "the pair's status")
        return decode(self.ear.heard[request_id][0].data, PairStatus)

    def close(self) -> None:
        for running in self._running:
            running.close()
        self.producer.close()
        self.ear.close()


class Running:
    """A predictor service on a thread, as the runtime runs it."""

    def __init__(self, settings: Settings, engine: FakeEngine) -> None:
        self.engine = engine
        self.context = Context(settings=settings)
        self.context.health.ready()
        self.failure: BaseException | None = None
        self.service = PredictorService(self.context, engine)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self.context.stopping.is_set():
                self.service.run_once()
            self.service.drain()
        except BaseException as error:
            self.failure = error
            raise

    def is_ready(self) -> bool:
        assert self.failure is None
        return not self.context.health.reasons()

    def metric(self, name: str, **labels: str) -> float:
        return self.context.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.context.stopping.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
