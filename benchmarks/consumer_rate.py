"""How fast pairs get from Kafka into Redis, as a share of what kafka-python can read at all.

    python benchmarks/consumer_rate.py [--broker embedded|HOST:PORT] [--pairs N] [--rounds N]

Each round reads the same records twice, in alternating order: with a bare kafka-python consumer that
counts them, and with EdgeSeq's consumer (decode, check, encode, one Lua script a batch) into a Redis
server of its own.  The medians of both rates and their ratio are printed as a table.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import redis as redis_py
from kafka import TopicPartition
from report import publish

from edgeseq_core.keys import Topics
from edgeseq_core.messages import Pair, encode
from edgeseq_core.model.base_file import BaseHeader, read_header
from edgeseq_core.replay.connection import check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import ConsumerSettings, KafkaSettings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.streams.connect import open_consumer
from edgeseq_core.streams.consumer import PairConsumer
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.open_consumer import open_pair_consumer
from edgeseq_core.streams.producer import OutRecord, RecordProducer
from edgeseq_core.streams.topics import create_topics
from edgeseq_services.embedded.broker import EmbeddedBroker
from edgeseq_services.embedded.ports import free_port, is_listening, wait_until

TASKS = ("dates", "glosses", "edits", "units")
DEADLINE_S = 120.0


class Speed(NamedTuple):
    """Of one run."""

    rate: float  # records a second
    cpu_us: float  # of this process, a record


class Counted(ConsumerEvents):
    """Counts settled pairs."""

    def __init__(self) -> None:
        self.accepted = 0

    def pairs(self, task: str, outcome: str, count: int) -> None:  # noqa: ARG002
        """Only accepted ones count."""
        self.accepted += count if outcome == "accepted" else 0


@contextmanager
def broker(choice: str, directory: Path) -> Iterator[str]:
    """The broker's address; an embedded one is started."""
    if choice != "embedded":
        yield choice
        return
    server = EmbeddedBroker(directory / "broker.log")
    server.start()
    try:
        yield server.bootstrap
    finally:
        server.stop()


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A Redis with AOF and noeviction, as EdgeSeq wants it."""
    binary = shutil.which("redis-server") or sys.exit("redis-server is not installed")
    port = free_port()
    options = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    process = subprocess.Popen(
        [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), *words],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_listening(port), timeout_s=10, alive=lambda: process.poll() is None)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def fill(kafka: KafkaSettings, pairs: int) -> int:
    """Produce pairs of about 250 bytes; returns their mean size."""
    topics = Topics(kafka.topic_prefix)
    size_bytes = 0
    with RecordProducer(kafka, client_id="bench", linger_ms=5) as producer:
        for number in range(pairs):
            task = TASKS[number % len(TASKS)]
            pair = Pair(
                pair_id=f"p{number}",
                producer="bench",
                task=task,
                source=f"Donnerstag, {number % 28 + 1}. September {1900 + number % 200}",
                target=f"{1900 + number % 200}-09-{number % 28 + 1:02d}",
                sent_at_ms=time.time_ns() // 1_000_000,
            )
            value = encode(pair)
            size_bytes += len(value)
            headers = [("edgeseq-id", pair.pair_id.encode())]
            record = OutRecord(topic=topics.pairs, key=task.encode(), value=value, headers=headers)
            producer.send(record)
        producer.flush()
    return size_bytes // pairs


class Stopwatch:
    """Wall and CPU time of this process since the first records came.

    Connecting and joining belong to neither side; CPU time is what a busy machine does not distort.
    """

    def __init__(self) -> None:
        self._skipped = 0
        self._wall_s = self._cpu_s = 0.0

    def saw(self, count: int) -> None:
        """So many records have come by now."""
        if count and not self._wall_s:
            self._skipped = count
            self._wall_s, self._cpu_s = time.monotonic(), time.process_time()

    def stop(self, count: int) -> Speed:
        """Records a second, CPU microseconds a record."""
        count -= self._skipped
        cpu_us = 1e6 * (time.process_time() - self._cpu_s) / count
        return Speed(count / (time.monotonic() - self._wall_s), cpu_us)


def bare_rate(kafka: KafkaSettings, pairs: int) -> Speed:
    """How fast kafka-python reads when nothing is done with the records."""
    topic = Topics(kafka.topic_prefix).pairs
    consumer = open_consumer(kafka, group=None, client_id="bench-bare")
    partitions = [TopicPartition(topic, p) for p in range(kafka.partitions)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    seen, watch = 0, Stopwatch()
    while seen < pairs:
        seen += sum(map(len, consumer.poll(timeout_ms=1_000).values()))
        watch.saw(seen)
    speed = watch.stop(seen)
    consumer.close()
    return speed


def consumer_rate(kafka: KafkaSettings, url: str, pairs: int, header: BaseHeader) -> Speed:
    """How fast pairs get from Kafka into an empty store."""
    client = connect(url)
    prefix = secrets.token_hex(4)
    check_store(client, prefix=prefix, partitions=kafka.partitions)
    events = Counted()
    consumer: PairConsumer = open_pair_consumer(
        kafka,
        ConsumerSettings(),
        vocabulary=header.vocabulary,
        digest=header.record_digest,
        max_tokens=header.config.max_tokens,
        store=RedisStore(client, prefix=prefix, partitions=kafka.partitions),
        registry=RedisRegistry(client, prefix=prefix, partitions=kafka.partitions),
        events=events,
    )
    deadline = time.monotonic() + DEADLINE_S
    watch = Stopwatch()
    while events.accepted < pairs:
        if time.monotonic() > deadline:
            sys.exit(f"only {events.accepted} of {pairs} pairs arrived in {DEADLINE_S:g} s")
        consumer.run_once(timeout_ms=1_000)
        watch.saw(events.accepted)
    speed = watch.stop(events.accepted)
    consumer.close()
    with redis_py.Redis.from_url(url) as cleaner:
        cleaner.flushall()
    client.close()
    return speed


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--broker", default="embedded")
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    header = read_header()
    bare, edgeseq = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        broker(options.broker, Path(folder)) as bootstrap,
        redis_server(Path(folder)) as url,
    ):
        kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=f"bench{secrets.token_hex(4)}")
        create_topics(kafka)
        size_bytes = fill(kafka, options.pairs)
        for number in range(options.rounds):
            for which in ("bare", "edgeseq") if number % 2 == 0 else ("edgeseq", "bare"):
                if which == "bare":
                    bare.append(bare_rate(kafka, options.pairs))
                else:
                    edgeseq.append(consumer_rate(kafka, url, options.pairs, header))
            print(
                f"round {number + 1}: bare {bare[-1].rate:,.0f}/s, edgeseq {edgeseq[-1].rate:,.0f}/s"
            )
        redis_version = redis_py.Redis.from_url(url).info("server")["redis_version"]
    ratios = [ours.rate / theirs.rate for ours, theirs in zip(edgeseq, bare, strict=True)]
    shares = [theirs.cpu_us / ours.cpu_us for ours, theirs in zip(edgeseq, bare, strict=True)]
    rows = []
    for name, values, form in (
        ("bare kafka-python, records/s", [speed.rate for speed in bare], ",.0f"),
        ("EdgeSeq consumer into Redis, pairs/s", [speed.rate for speed in edgeseq], ",.0f"),
        ("ratio of the rates in the same round", ratios, ".2f"),
        ("bare kafka-python, CPU µs a record", [speed.cpu_us for speed in bare], ".1f"),
        ("EdgeSeq consumer, CPU µs a pair (without Redis)", [s.cpu_us for s in edgeseq], ".1f"),
        ("ratio of the CPU times", shares, ".2f"),
    ):
        figures = {
            "median": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
        }
        rows.append({"what": name, **{key: format(value, form) for key, value in figures.items()}})
    kind = options.broker if options.broker == "embedded" else "apache"
    publish(
        f"consumer-rate-{kind}",
        f"python benchmarks/consumer_rate.py --broker {options.broker}",
        rows,
        f"{options.pairs:,} pairs of {size_bytes} bytes in {len(TASKS)} tasks, {options.rounds} rounds; "
        f"Redis {redis_version}.",
    )


if __name__ == "__main__":
    main()
