"""A real Prometheus scrapes the live loop and answers every query of the dashboard."""

from __future__ import annotations

import json
import math
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaProducer

from edgeseq_core.client import Client, Options
from edgeseq_core.keys import Topics
from edgeseq_core.settings import load_settings
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.embedded.ports import LOOPBACK, free_port, is_listening, wait_until
from edgeseq_services.embedded.process import last_line, spawn, stop
from edgeseq_services.up import Instance, up
from tests.monitoring.dashboards import DASHBOARD, ROOT, queries, substituted

TASK = "upper"
DEADLINE_S = 150.0
BETWEEN_ROUNDS_S = 1.0


class Prometheus:
    """One process that scrapes the ports of an instance, else as the committed file says."""

    def __init__(self, folder: Path, instance: Instance) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            pytest.skip("prometheus is not installed")
        config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
        for source in config["scrape_configs"][0]["static_configs"]:
            (target,) = source["targets"]
            source["targets"] = [f"{LOOPBACK}:{instance.endpoints.http[target.split(':')[0]]}"]
        config["global"]["scrape_interval"] = "1s"
        folder.mkdir()
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._port, self._log = free_port(), folder / "prometheus.log"
        self._command = [
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self._port}",
        ]

    def __enter__(self) -> Prometheus:
        self._process = spawn(self._command, log=self._log)
        started = wait_until(
            lambda: is_listening(self._port),
            timeout_s=30,
            alive=lambda: self._process.poll() is None,
        )
        if not started:
            stop(self._process, grace_s=1)
            pytest.fail(f"prometheus did not start: {last_line(self._log)}")
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process, grace_s=10)

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://{LOOPBACK}:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:  # it is starting
                    return {"result": []}
                pytest.fail(f"{path} {parameters}: {error.read().decode()}")

    def samples(self, query: str) -> list[float]:
        """The numbers that a query gives now; NaN, which draws nothing, left out."""
        values = [float(one["value"][1]) for one in self.ask("query", query=query)["result"]]
        return [value for value in values if not math.isnan(value)]

    def tasks(self) -> list[str]:
        """What the dashboard's task variable offers."""
        (variable,) = (v for v in DASHBOARD["templating"]["list"] if v["name"] == "task")
        selector = variable["query"]["query"].removeprefix("label_values(").split(",")[0]
        found = self.ask("label/task/values", **{"match[]": selector})
        return found if isinstance(found, list) else []


def traffic(instance: Instance) -> Iterator[None]:
    """Pairs, requests, and one record that is no message on each topic; a few each time."""
    kafka = instance.settings.kafka
    topics, number = Topics(kafka.topic_prefix), 0
    bad = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        for topic in (topics.pairs, topics.requests):
            bad.send(topic, key=TASK.encode(), value=b"\xff no message")
        bad.flush(timeout=30)
    finally:
        bad.close()
    with Client(settings=kafka, producer="monitoring-test") as client:
        while True:
            words = [f"word {n}" for n in range(number, number + 20)]
            client.teach(TASK, [(word, word.upper()) for word in words])
            list(client.predict_each(words[:3], Options(task=TASK, timeout_s=20)))
            number += 20
            yield


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_panel_is_answered_while_the_loop_runs(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base.safetensors")
    settings = load_settings(
        base={"path": str(base)},
        **{name: {"http_port": 0} for name in ("consumer", "learner", "predictor")},
    )
    with (
        up(tmp_path / "state", settings=settings) as instance,
        Prometheus(tmp_path / "prometheus", instance) as prometheus,
    ):
        deadline = time.monotonic() + DEADLINE_S
        unanswered = list(queries())
        for _ in traffic(instance):
            if TASK in prometheus.tasks():
                unanswered = [
                    (title, query)
                    for title, query in unanswered
                    if not prometheus.samples(substituted(query, task=TASK))
                ]
            if not unanswered:
                break
            assert time.monotonic() < deadline, f"no sample for {unanswered}"
            time.sleep(BETWEEN_ROUNDS_S)
        assert prometheus.samples('up{job="edgeseq"}') == [1.0, 1.0, 1.0]
