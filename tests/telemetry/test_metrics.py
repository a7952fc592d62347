"""Metric names and labels are what dashboards ask for, and labels stay bounded."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from edgeseq_core.telemetry.metrics import (
    MAX_TASK_LABELS,
    ConsolidatorMetrics,
    ConsumerMetrics,
    LearnerMetrics,
    PredictorMetrics,
    TaskLabels,
)

UNITS = (
    "seconds", "bytes", "pairs", "rows", "requests", "tasks", "ratio", "loss", "total", "info",
)  # fmt: skip
UNITLESS = ("drift_statistic", "drift_flag", "paused_partitions", "encoder_layers")
LABELS = {
    "task", "outcome", "stage", "priority", "topic", "partition", "reason", "action", "verdict",
    "set", "part", "state", "signal",
}  # fmt: skip
ALL = [ConsumerMetrics, LearnerMetrics, ConsolidatorMetrics, PredictorMetrics]


@pytest.mark.parametrize("metrics", ALL)
def test_names_carry_part_and_unit_and_known_labels(
    metrics: type[Any],
) -> None:
    registry = CollectorRegistry()
    made = metrics(registry)
    families = [f for f in registry.collect() if f.name != "edgeseq_service"]
    assert len(families) >= 6
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert re.fullmatch(rf"edgeseq_{made.part}_[a-z_]+", name)
        assert name.endswith((*UNITS, *UNITLESS)), name
        assert family.documentation.endswith(".")
    for value in vars(made).values():
        assert set(getattr(value, "_labelnames", ())) <= LABELS


@pytest.mark.parametrize("metrics", ALL)
def test_a_registry_of_its_own_per_service(
    metrics: type[Any],
) -> None:
    for _ in range(2):
        registry = CollectorRegistry()
        part = metrics(registry).part
        assert f'service="{part}"' in generate_latest(registry).decode()


def test_tasks_beyond_the_limit_share_a_label() -> None:
    label = TaskLabels()
    names = [f"task{i}" for i in range(MAX_TASK_LABELS + 50)]
    labels = {label(name) for name in names}
    assert len(labels) == MAX_TASK_LABELS + 1
    assert label("task0") == "task0"
    assert label(names[-1]) == "other"
