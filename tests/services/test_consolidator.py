"""An `edgeseq up` that consolidates by itself: killed in training it begins again; then one base is left."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeseq_core.client import Client
from edgeseq_core.model.base_file import read_header
from edgeseq_core.settings import Settings, load_settings
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.base_change import change_stored_base
from edgeseq_services.cli.store import open_store
from edgeseq_services.handover import bases
from edgeseq_services.supervisor import Backoff
from edgeseq_services.up import Instance, up

TASKS = ("upper", "lower")
FAST = Backoff(first_s=0.1, last_s=1, stable_s=60)


def until(holds: Callable[[], object], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.05)


def settings(base: Path, **mine: object) -> Settings:
    """Learning so slow that it is a plateau from the second look on."""
    return load_settings(
        base={"path": str(base)},
        learning={"learning_rate": 1e-6, "held_out_share": 0.2, "rank": 2},
        consolidator={
            "automatic": True,
            "hours_between": 0,
            "flat_looks": 1,
            "least_pairs": 400,
            "quiet_s": 1,
            "cpu_s": 4,
            **mine,
        },
    )


def metric(instance: Instance, name: str, **labels: str) -> float:
    """Of the consolidator; 0 while it does not answer, or has none."""
    url = f"http://127.0.0.1:{instance.endpoints.http['consolidator']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    name = f"edgeseq_consolidator_{name}"
    return next(
        (s.value for s in samples if s.name == name and labels.items() <= s.labels.items()), 0
    )


def teach(instance: Instance) -> None:
    with Client(instance.endpoints.kafka, producer="test") as client:
        for task in TASKS:
            client.teach(task, [(f"number {n}", task[0]) for n in range(440)])


def answers(instance: Instance) -> set[str]:
    with Client(instance.endpoints.kafka, producer="test") as client:
        return {client.predict(task, "number 901").target for task in TASKS}


def on(instance: Instance) -> set[str]:
    with open_store(instance.settings) as store:
        return bases(store)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_it_starts_by_itself_survives_a_kill_and_is_rolled_back(tmp_path: Path) -> None:
    old, folder = write_tiny_base(tmp_path / "old.safetensors"), tmp_path / "state"
    events: list[str] = []
    with up(folder, settings=settings(old), backoff=FAST, on_event=events.append) as instance:
        teach(instance)
        until(lambda: metric(instance, "running_tasks") == 2)
        pid = instance.supervisor.status()["consolidator"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: instance.supervisor.status()["consolidator"].restarts == 1)
        assert on(instance) == set()
        assert list((folder / "bases").glob("*.safetensors")) == []

        until(lambda: on(instance))
        (new,) = (folder / "bases").glob("*.safetensors")
        until(lambda: any(str(new) in event for event in events))
        until(lambda: all(s.state == "running" for s in instance.supervisor.status().values()))
        assert on(instance) == {read_header(new).digest}
        until(lambda: answers(instance) == {"u", "l"})
        with Client(instance.endpoints.kafka, producer="test") as client:
            report = client.teach("upper", [("number 777", "u")])
            until(
                lambda: (
                    client.pair_status("upper", "test", report.pair_ids[0]).state
                    in ("trained", "held_out")
                )
            )
    later = settings(old, hours_between=24)
    with up(folder, settings=later, backoff=FAST) as instance:  # the base as the store is
        assert answers(instance) == {"u", "l"}
    list(change_stored_base(old, new, settings=later, directory=folder))
    with up(folder, settings=later, backoff=FAST) as instance:
        assert on(instance) == {read_header(old).digest}
        assert answers(instance) != {"u", "l"}
