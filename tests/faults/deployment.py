"""The three services as real processes on real servers, and the clients around them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from edgeseq_core.errors import EdgeSeqError
from edgeseq_core.keys import (
    HEADER_ID,
    HEADER_ORIGIN,
    HEADER_REPLY_PARTITION,
    HEADER_REPLY_TOPIC,
    Topics,
    partition_of,
)
from edgeseq_core.messages import Feedback, Pair, Reply, Request, decode, encode
from edgeseq_core.replay.connection import check_store, connect
from edgeseq_core.replay.record import pair_key
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.streams.topics import create_topics
from edgeseq_services.embedded.ports import free_port
from tests.faults.facts import outcomes, task_facts
from tests.faults.history import Facts, HeardReply, SentPair

PARTITIONS = 4
TASKS = ("dates", "glosses", "edits")
SERVICES = ("consumer", "learner", "predictor")
REPLY_PARTITION = 3
WAIT_S = 120.0  # of a busy machine
LEARNING = {
    "RANK": "2",
    "FRESH_PER_STEP": "12",
    "REPLAY_PER_STEP": "4",
    "RECENT_PAIRS": "6",
    "PROBE_PAIRS": "6",
    "HELD_OUT_SHARE": "0.1",
    "GATE_INTERVAL_S": "0.3",
    "REHEARSALS_PER_STEP": "1",
    "WARMUP_STEPS": "2",
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = WAIT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.05)


class Deployment:
    """Topics, a store, processes by name, and everything that went in and came out."""

    def __init__(
        self,
        bootstrap: str,
        redis_url: str,
        base_path: Path,
        directory: Path,
        *,
        learning: Mapping[str, str] = LEARNING,
    ) -> None:
        self.name = f"t{secrets.token_hex(6)}"
        self.bootstrap, self._directory = bootstrap, directory
        self.kafka = KafkaSettings(
            bootstrap=bootstrap, topic_prefix=self.name, partitions=PARTITIONS
        )
        self.topics = Topics(self.name)
        create_topics(self.kafka)
        self.client = connect(redis_url)
        check_store(self.client, prefix=self.name, partitions=PARTITIONS)
        self.store = RedisStore(self.client, prefix=self.name, partitions=PARTITIONS)
        self.registry = RedisRegistry(self.client, prefix=self.name, partitions=PARTITIONS)
        self._environment = {
            "EDGESEQ_KAFKA__BOOTSTRAP": bootstrap,
            "EDGESEQ_KAFKA__TOPIC_PREFIX": self.name,
            "EDGESEQ_KAFKA__PARTITIONS": str(PARTITIONS),
            "EDGESEQ_REDIS__URL": redis_url,
            "EDGESEQ_REDIS__KEY_PREFIX": self.name,
            "EDGESEQ_BASE__PATH": str(base_path),
            "EDGESEQ_PREDICTOR__MAX_TOKENS": "8",
            **{f"EDGESEQ_LEARNING__{name}": value for name, value in learning.items()},
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self.sent: list[tuple[str, str, str, int]] = []  # task, pair id, topic, offset
        self.asked: set[str] = set()
        self.heard: list[HeardReply] = []
        self.served: set[str] = set()  # tasks that had an answer
        self.errors: dict[str, str] = {}  # request id -> error code
        self.letters: set[str] = set()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0
        )
        self._threads = [
            self._listen(self.topics.replies, REPLY_PARTITION, self._hear),
            self._listen(self.topics.dead_letters, 0, self._read_letter),
        ]

    # --- processes --------------------------------------------------------------------------------
    def start(self, *services: str) -> None:
        """Start services and wait until all are ready; "learner-2" is a second learner."""
        for service in services:
            kind = service.partition("-")[0]
            port = self._ports[service] = free_port()
            own = {f"EDGESEQ_{kind.upper()}__HTTP_PORT": str(port)}
            with (self._directory / f"{service}.log").open("ab") as log:
                self.processes[service] = subprocess.Popen(
                    [sys.executable, "-m", f"edgeseq_services.{kind}"],
                    env={**os.environ, **self._environment, **own},
                    stdout=log,
                    stderr=log,
                )
        for service in services:
            wait_for(lambda s=service: self.is_ready(s), f"{service} to be ready")

    def is_ready(self, service: str) -> bool:
        assert self.processes[service].poll() is None, self.log(service)[-2_000:]
        try:
            url = f"http://127.0.0.1:{self._ports[service]}/readyz"
            with urllib.request.urlopen(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self, service: str) -> None:
        """kill -9."""
        self.processes[service].kill()
        self.processes[service].wait()

    def signal(self, service: str, number: signal.Signals) -> None:
        self.processes[service].send_signal(number)

    def log(self, service: str) -> str:
        return (self._directory / f"{service}.log").read_text()

    # --- producers and clients --------------------------------------------------------------------
    def teach(self, task: str, pair_id: str, *, correction: bool = False) -> None:
        """Send one pair and wait until the broker has it."""
        topic = self.topics.feedback if correction else self.topics.pairs
        fields = {
            "pair_id": pair_id,
            "producer": "erp",
            "task": task,
            "source": f"in {pair_id}",
            "target": pair_id[-2:],
            "sent_at_ms": now_ms(),
        }
        value = encode(Feedback(**fields) if correction else Pair(**fields))
        done = self._producer.send(topic, key=task.encode(), value=value).get(timeout=20)
        assert done.partition == partition_of(task, PARTITIONS)
        with self._lock:
            self.sent.append((task, pair_id, topic, done.offset))

    def ask(self, task: str, request_id: str) -> None:
        """Send one request and wait until the broker has it."""
        request = Request(request_id=request_id, task=task, source="in 7", sent_at_ms=now_ms())
        headers = [
            (HEADER_ID, request_id.encode()),
            (HEADER_REPLY_TOPIC, self.topics.replies.encode()),
            (HEADER_REPLY_PARTITION, str(REPLY_PARTITION).encode()),
        ]
        self._producer.send(
            self.topics.requests, key=task.encode(), value=encode(request), headers=headers
        ).get(timeout=20)
        self.asked.add(request_id)

    @contextmanager
    def streaming(self, mark: str, pairs: int) -> Iterator[Stream]:
        """A producer and a client at work; leaving the block waits until all is acknowledged."""
        stream = Stream(self, mark, pairs)
        stream.start()
        try:
            yield stream
        finally:
            stream.join()
        assert stream.failure is None, stream.failure

    def _listen(
        self, topic: str, partition: int, take: Callable[[object], None]
    ) -> threading.Thread:
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, fetch_max_wait_ms=50, enable_auto_commit=False
        )
        at = TopicPartition(topic, partition)
        consumer.assign([at])
        consumer.seek(at, 0)

        def run() -> None:
            while not self._closing.is_set():
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        take(record)
            consumer.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _hear(self, record: object) -> None:
        if json.loads(record.value)["kind"] != "reply":  # type: ignore[attr-defined]
            return  # another client's, on the same partition
        reply = decode(record.value, Reply)  # type: ignore[attr-defined]
        task = str(reply.task)
        if reply.error is None:
            self.served.add(task)
        elif reply.error.code != "unknown_task" or task in self.served:
            # A champion is unknown to the predictor until it looks, a few times a second.
            self.errors[reply.request_id] = reply.error.code
        self.heard.append(
            HeardReply(
                request_id=reply.request_id,
                task=task,
                snapshot_id=reply.snapshot_id,
                answer=record.value,  # type: ignore[attr-defined]
                sent_ms=record.timestamp or now_ms(),  # type: ignore[attr-defined]
            )
        )

    def _read_letter(self, record: object) -> None:
        origin = dict(record.headers)[HEADER_ORIGIN].decode()  # type: ignore[attr-defined]
        self.letters.add(origin)

    # --- the end ----------------------------------------------------------------------------------
    def states(self) -> list[str]:
        """What the store says of every pair that was sent."""
        with self._lock:
            names = [(task, "erp", pair_id) for task, pair_id, *_ in self.sent]
        found = outcomes(self.store, names)
        return [found[name].state if found[name] else "unknown" for name in names]  # type: ignore[union-attr]

    def is_drained(self) -> bool:
        """Every pair is learnt or held out, and every request has its answer."""
        answered = {reply.request_id for reply in self.heard}
        try:
            return self.asked <= answered and set(self.states()) <= {"trained", "held_out"}
        except EdgeSeqError:
            return False

    def is_served(self) -> bool:
        """Every task's last step was offered."""
        for task in self.tasks():
            lines = self.store.journal(task)
            if not lines or '"kind":"gate"' not in lines[-1]:
                return False
        return True

    def tasks(self) -> list[str]:
        return [task for n in range(PARTITIONS) for task in self.store.tasks(n)]

    def drain(self, *, timeout_s: float = WAIT_S) -> None:
        """Wait until every pair is learnt and offered, and every request has its answer."""
        deadline_s = time.monotonic() + timeout_s
        while not (self.is_drained() and self.is_served()):
            if time.monotonic() > deadline_s:
                silent = self.asked - {reply.request_id for reply in self.heard}
                states, served = Counter(self.states()), self.is_served()
                pytest.fail(f"not drained: {states}, unanswered {sorted(silent)}, served {served}")
            time.sleep(0.05)

    def facts(self, *, earlier: tuple[Facts, ...] = ()) -> Facts:
        """The whole history so far."""
        logs = {
            (topic, n): position.log
            for n in range(PARTITIONS)
            for topic, position in self.store.positions(n).items()
        }
        sent = [
            SentPair(
                name=(task, "erp", pair_id),
                key=pair_key(logs[topic, partition_of(task, PARTITIONS)], topic, offset),
            )
            for task, pair_id, topic, offset in self.sent
        ]
        return Facts(
            tasks=task_facts(self.store, self.registry, partitions=PARTITIONS),
            sent=sent,
            outcomes=outcomes(self.store, [pair.name for pair in sent]),
            asked=frozenset(self.asked),
            heard=list(self.heard),
            earlier=earlier,
        )

    def everything(self) -> dict[bytes, Any]:
        """Everything in the store (but not the cache of replies), so that a change shows."""
        client: Any = self.client
        readers = {
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"string": client.get,
        }
        keys = client.scan_iter(f"{{{self.name}*")
        return {key: readers[client.type(key)](key) for key in keys}

    def close(self) -> None:
        self._closing.set()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for thread in self._threads:
            thread.join(10)
        self._producer.close(timeout=5)
        self.client.close()


class Stream(threading.Thread):
    """Sends pairs over all tasks, some of them corrections, and asks for served tasks meanwhile."""

    def __init__(self, deployment: Deployment, mark: str, pairs: int) -> None:
        super().__init__(daemon=True)
        self._to, self._mark, self._pairs = deployment, mark, pairs
        self.done = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for n in range(self._pairs):
                task = TASKS[n % len(TASKS)]
                self._to.teach(task, f"{self._mark}-{n}", correction=n % 13 == 5)
                if n % 4 == 0:
                    self._ask(n)
                self.done = n + 1
                time.sleep(0.01)  # a stream, so that a fault falls into its middle
        except BaseException as error:
            self.failure = error

    def _ask(self, n: int) -> None:
        try:
            served = self._to.registry.champions(range(PARTITIONS))
        except EdgeSeqError:  # the store is down: ask again later
            return
        for task in sorted(served)[:1]:
            self._to.ask(task, f"{self._mark}-r{n}")

    def until(self, share: float) -> None:
        """Wait until a share of the pairs was sent."""
        wait_for(lambda: self.done >= share * self._pairs or self.failure is not None, "the stream")
