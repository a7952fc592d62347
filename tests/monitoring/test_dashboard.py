"""The dashboard asks for metrics and labels that the services export, and for all that matters."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from edgeseq_core.telemetry.metrics import (
    ConsolidatorMetrics,
    ConsumerMetrics,
    LearnerMetrics,
    PredictorMetrics,
)
from tests.monitoring.dashboards import DASHBOARD, FILE, GRAPHS, ROOT, queries, substituted

_METRIC = re.compile(r"\bedgeseq_[a-z_]+")
_LABELS = re.compile(r"by \(([^)]*)\)|\{([^}]*)\}")
_ADDED_BY_PROMETHEUS = {"instance", "job"}
_WIDTH = 24


def exported() -> dict[str, set[str]]:
    """Series name -> its labels."""
    names: dict[str, set[str]] = {"edgeseq_service_loop_beat_age_seconds": {"loop"}}
    for metrics in (ConsumerMetrics, LearnerMetrics, PredictorMetrics, ConsolidatorMetrics):
        for value in vars(metrics(CollectorRegistry())).values():
            if not hasattr(value, "_labelnames"):
                continue
            name, labels = value._name, set(value._labelnames)
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            for suffix in suffixes.get(value._type, [""]):
                names[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return names


def asked() -> list[str]:
    """Every query of the page: panels, annotations, and the variable."""
    found = [query for _, query in queries()]
    found += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    return found


@pytest.mark.parametrize("query", asked())
def test_a_query_names_what_is_exported(query: str) -> None:
    known = exported()
    metrics = _METRIC.findall(query)
    assert metrics
    for metric in metrics:
        assert metric in known, metric
    labels = set().union(*(known[m] for m in metrics)) | _ADDED_BY_PROMETHEUS
    for by, selector in _LABELS.findall(query):
        used = [part.strip() for part in by.split(",") if part.strip()]
        used += re.findall(r"(\w+)\s*[=!]", selector)
        assert set(used) <= labels, (query, used)


@pytest.mark.parametrize("panel", GRAPHS, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_its_query_keeps(panel: dict) -> None:  # type: ignore[type-arg]
    known = exported()
    for target in panel["targets"]:
        grouped = re.search(r"sum by \(([^)]*)\)", target["expr"])
        (metric, *_) = _METRIC.findall(target["expr"])
        kept = known[metric] | _ADDED_BY_PROMETHEUS
        if grouped:
            kept = {part.strip() for part in grouped[1].split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_there_is_a_panel_for_each_thing_an_operator_asks() -> None:
    text = " ".join(asked())
    for metric in (
        "drift_statistic", "drift_flag", "held_out_accuracy", "prequential_accuracy", "latency",
        "freshness", "lag_pairs", "consumer_pairs_total", "requests_total", "waiting_pairs",
        "waiting_age", "buffer_bytes", "gate_total", "snapshot_age", "learner_pairs_total",
        "loop_beat_age", "drift_alarms_total", "consolidator_runs_total",
    ):  # fmt: skip
        assert metric in text, metric
    quantiles = {
        (q, m) for q, m in re.findall(r"quantile\(([\d.]+),.*?edgeseq_(\w+?)_seconds", text)
    }
    assert quantiles >= {
        ("0.5", "predictor_freshness"), ("0.95", "predictor_freshness"),
        ("0.5", "predictor_latency"), ("0.95", "predictor_latency"), ("0.99", "predictor_latency"),
    }  # fmt: skip


def test_panels_have_units_and_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < _WIDTH
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in GRAPHS)
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_file_is_what_the_builder_writes() -> None:
    builder = runpy.run_path(str(ROOT / "monitoring/grafana/build.py"))
    assert FILE.read_text() == builder["text"](), "run python monitoring/grafana/build.py"


def test_compose_shows_this_dashboard_through_the_provisioned_source() -> None:
    grafana = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    folder = ROOT / "monitoring/grafana/provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards/edgeseq.yaml").read_text())["providers"]
    assert mounts["../monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["../monitoring/grafana/dashboards"] == provider["options"]["path"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{FILE.name}"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    chosen = next(v for v in DASHBOARD["templating"]["list"] if v["name"] == "datasource")
    assert chosen["current"]["value"] == source["uid"]
    scraped = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    rules = [
        {"record": f"check:query{i}", "expr": substituted(query)} for i, query in enumerate(asked())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", str(file)], check=True, timeout=20)
