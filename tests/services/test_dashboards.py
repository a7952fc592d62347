"""Every query of a dashboard asks for metrics and labels that the services export, and parses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from edgeseq_core.telemetry.metrics import ConsumerMetrics, LearnerMetrics, PredictorMetrics

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "monitoring/grafana/dashboards").glob("*.json"))
_METRIC = re.compile(r"\bedgeseq_[a-z_]+")
_LABELS = re.compile(r"by \(([^)]*)\)|\{([^}]*)\}")


def queries() -> list[str]:
    found = []
    for file in DASHBOARDS:
        dashboard: dict[str, Any] = json.loads(file.read_text())
        found += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    return found


def exported() -> dict[str, set[str]]:
    """Series name -> its labels."""
    names: dict[str, set[str]] = {}
    for metrics in (ConsumerMetrics, LearnerMetrics, PredictorMetrics):
        for value in vars(metrics(CollectorRegistry())).values():
            if not hasattr(value, "_labelnames"):
                continue
            name, labels = value._name, set(value._labelnames)
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            for suffix in suffixes.get(value._type, [""]):
                names[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return names


@pytest.mark.parametrize("query", queries())
def test_a_query_names_what_is_exported(query: str) -> None:
    known = exported()
    metrics = _METRIC.findall(query)
    assert metrics
    for metric in metrics:
        assert metric in known, metric
    labels = set().union(*(known[m] for m in metrics))
    for by, selector in _LABELS.findall(query):
        used = [part.strip() for part in by.split(",") if part.strip()]
        used += re.findall(r"(\w+)\s*[=!]", selector)
        assert set(used) <= labels, (query, used)


def test_there_is_a_panel_for_each_thing_an_operator_asks() -> None:
    text = " ".join(queries())
    for metric in (
        "drift_statistic", "drift_flag", "held_out_accuracy", "prequential_accuracy", "latency",
        "freshness", "lag_pairs", "pairs_total", "requests_total",
    ):  # fmt: skip
        assert metric in text, metric


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    rules = [
        {
            "record": f"check:query{i}",
            "expr": query.replace("$__rate_interval", "1m").replace("$task", ".*"),
        }
        for i, query in enumerate(queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", str(file)], check=True, timeout=20)
