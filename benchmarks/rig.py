"""The whole product on this machine, on the embedded broker or on Apache Kafka."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.settings import load_settings
from edgeseq_services.up import Instance, up

ROOT = Path(__file__).parents[1]


@contextmanager
def running(broker: str, **sections: dict[str, object]) -> Iterator[Instance]:
    """Broker ("embedded" or "apache": KAFKA_HOME), store and the three services; settings by section."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeseq-bench-")))
        address = None
        if broker == "apache":
            sys.path.insert(0, str(ROOT))
            from tests.brokers import ApacheKafka

            kafka = ApacheKafka(Path(os.environ["KAFKA_HOME"]), folder / "kafka")
            kafka.start()
            stack.callback(kafka.stop)
            address = kafka.bootstrap
        settings = load_settings(**sections)
        yield stack.enter_context(
            up(folder / "state", kafka=address, settings=settings, on_event=print)
        )


def demo_pairs(task: str, count: int, *, skip: int = 0) -> list[tuple[str, str]]:
    """Training pairs of a demo task."""
    examples = islice(DEMO_TASKS[task].train(1), skip, skip + count)
    return [(example.source, example.target) for example in examples]


def megabytes(instance: Instance) -> dict[str, int]:
    """Resident memory of every child."""
    return {name: size >> 20 for name, size in instance.resident_bytes().items()}
