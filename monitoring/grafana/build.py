"""Writes the dashboard from the list below:  python monitoring/grafana/build.py

The JSON is committed, so Grafana needs no build; a test compares it with this list and asks a real
Prometheus every query.  ``$task`` is the task that is looked at, ``$datasource`` the Prometheus.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "dashboards/edgeseq.json"
SCHEMA_VERSION = 41  # of Grafana 12.1
COLUMNS, WIDTH, HEIGHT = 24, 8, 7
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TASK = '{task=~"$task"}'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One graph: what it tells, its unit, and its queries with their legends."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    limits: dict[str, float] = field(default_factory=dict)  # min, max of the axis
    steps: bool = False  # values hold until the next one


def gauge(name: str) -> str:
    """A gauge of the chosen tasks."""
    return f"edgeseq_{name}{TASK}"


def signal(name: str, which: str) -> str:
    """A gauge of the chosen tasks, of some of the drift detectors' signals."""
    return f'edgeseq_{name}{{task=~"$task",signal{which}}}'


def rate(name: str, by: str) -> str:
    """Events a second."""
    return f"sum by ({by}) (rate(edgeseq_{name}{TASK}{RATE}))"


def quantile(q: float, name: str, selector: str = "") -> str:
    """A quantile of a histogram over all label values that the selector leaves."""
    return f"histogram_quantile({q}, sum by (le) (rate(edgeseq_{name}_bucket{selector}{RATE})))"


SHARE = {"min": 0.0, "max": 1.0}
ZERO = {"min": 0.0}

ROWS: dict[str, tuple[Panel, ...]] = {
    "Does it learn?": (
        Panel(
            "Held-out accuracy",
            "Exact answers of the serving snapshot on pairs it never learnt, as the gate counts them.",
            "percentunit",
            ((gauge("learner_held_out_accuracy_ratio"), "{{task}} {{set}}"),),
            SHARE,
        ),
        Panel(
            "Prequential accuracy",
            "Exact answers on each pair just before it is learnt; recent pairs weigh most.",
            "percentunit",
            ((gauge("learner_prequential_accuracy_ratio"), "{{task}}"),),
            SHARE,
        ),
        Panel(
            "Loss, nats a token",
            "Prequential, and held-out of the serving snapshot.",
            "none",
            (
                (gauge("learner_prequential_loss"), "{{task}} prequential"),
                (gauge("learner_held_out_loss"), "{{task}} {{set}}"),
            ),
            ZERO,
        ),
        Panel(
            "Drift statistic",
            "What makes a task adapt: the mean prequential loss in its detector's window.",
            "none",
            ((signal("learner_drift_statistic", '="loss"'), "{{task}}"),),
        ),
        Panel(
            "Drift flag",
            "1 while a drift is recent: the probe set still holds pairs from before it.",
            "none",
            ((gauge("learner_drift_flag"), "{{task}}"),),
            SHARE,
            steps=True,
        ),
        Panel(
            "Signals beside the loss",
            "Means of what else is watched: sure answers, lengths, characters unknown to the base, distance.",
            "none",
            ((signal("learner_drift_statistic", '!="loss"'), "{{task}} {{signal}}"),),
        ),
        Panel(
            "Changes of signals",
            "Since the learner started. Of all but the loss: the input changed, the answers have not (yet).",
            "short",
            ((gauge("learner_drift_alarms_total"), "{{task}} {{signal}}"),),
            ZERO,
            steps=True,
        ),
        Panel(
            "Gate verdicts",
            "Candidates promoted and held, a second.",
            "ops",
            ((rate("learner_gate_total", "task, verdict"), "{{task}} {{verdict}}"),),
            ZERO,
        ),
    ),
    "Is it fast?": (
        Panel(
            "Freshness",
            "Arrival of a pair to its snapshot being served.",
            "s",
            (
                (quantile(0.5, "predictor_freshness_seconds", TASK), "p50"),
                (quantile(0.95, "predictor_freshness_seconds", TASK), "p95"),
            ),
            ZERO,
        ),
        Panel(
            "Reply latency",
            "Receipt of a request to its reply being sent.",
            "s",
            tuple(
                (quantile(q, "predictor_latency_seconds", '{stage="total"}'), f"p{q * 100:g}")
                for q in (0.5, 0.95, 0.99)
            ),
            ZERO,
        ),
        Panel(
            "Pairs learnt",
            "Pairs trained on, a second.",
            "ops",
            ((rate("learner_pairs_total", "task"), "{{task}}"),),
            ZERO,
        ),
        Panel(
            "Waiting pairs",
            "Fresh pairs not yet trained.",
            "short",
            ((gauge("learner_waiting_pairs"), "{{task}}"),),
            ZERO,
        ),
        Panel(
            "Waiting age",
            "Age of the oldest fresh pair.",
            "s",
            ((gauge("learner_waiting_age_seconds"), "{{task}}"),),
            ZERO,
        ),
        Panel(
            "Snapshot age",
            "Time since the serving snapshot was promoted; it grows while nothing new is learnt.",
            "s",
            ((gauge("predictor_snapshot_age_seconds"), "{{task}}"),),
            ZERO,
        ),
        Panel(
            "Stages of a learner's turn",
            "Seconds of each second spent drawing, training, committing and at the gate.",
            "percentunit",
            ((rate("learner_step_seconds_sum", "stage"), "{{stage}}"),),
            ZERO,
        ),
        Panel(
            "Requests that wait",
            "In the predictor's queue, by priority; bulk ones wait in Kafka.",
            "short",
            (("sum by (priority) (edgeseq_predictor_queue_requests)", "{{priority}}"),),
            ZERO,
        ),
        Panel(
            "Rows of a batch",
            "Requests that the predictor answers at once, p50 and p95.",
            "short",
            (
                (quantile(0.5, "predictor_batch_rows"), "p50"),
                (quantile(0.95, "predictor_batch_rows"), "p95"),
            ),
            ZERO,
        ),
        Panel(
            "Tasks in memory",
            "Tasks that the predictors hold, and cold ones, which are loaded when they are asked for.",
            "short",
            (("sum by (state) (edgeseq_predictor_tasks)", "{{state}}"),),
            ZERO,
        ),
        Panel(
            "Memory of tasks",
            "Bytes of the tasks that each predictor holds, bounded by predictor.tasks_budget_bytes.",
            "bytes",
            (("edgeseq_predictor_resident_bytes", "{{instance}}"),),
            ZERO,
        ),
        Panel(
            "Wait for a cold task",
            "From the first request of a task that is not in memory to its being loaded; 0 while all are.",
            "s",
            tuple(
                (
                    f"({quantile(q, 'predictor_cold_load_seconds')} >= 0) or vector(0)",
                    f"p{q * 100:g}",
                )
                for q in (0.5, 0.95)
            ),
            ZERO,
        ),
    ),
    "What became of it?": (
        Panel(
            "Pairs by outcome",
            "What the consumer did with each pair, a second.",
            "ops",
            ((rate("consumer_pairs_total", "outcome"), "{{outcome}}"),),
            ZERO,
        ),
        Panel(
            "Requests by outcome",
            "Answered by the model or from memory (remembered), abstained, or a typed error, a second.",
            "ops",
            ((rate("predictor_requests_total", "outcome"), "{{outcome}}"),),
            ZERO,
        ),
        Panel(
            "Dead letters",
            "Records that could not be used, in all since the services started.",
            "short",
            (
                ("sum by (reason) (edgeseq_consumer_dead_letters_total)", "pairs: {{reason}}"),
                ("sum by (reason) (edgeseq_predictor_dead_letters_total)", "requests: {{reason}}"),
            ),
            ZERO,
            steps=True,
        ),
        Panel(
            "Consumer lag",
            "Records in Kafka that are not yet in the replay buffer.",
            "short",
            (("sum by (topic) (edgeseq_consumer_lag_pairs)", "{{topic}}"),),
            ZERO,
        ),
        Panel(
            "Replay buffer, bytes",
            "By part; each task's reservoir has a budget.",
            "bytes",
            ((f"sum by (part) (edgeseq_learner_buffer_bytes{TASK})", "{{part}}"),),
            ZERO,
        ),
        Panel(
            "Replay buffer, pairs",
            "By part.",
            "short",
            ((f"sum by (part) (edgeseq_learner_buffer_pairs{TASK})", "{{part}}"),),
            ZERO,
        ),
    ),
    "Is it alive?": (
        Panel(
            "Loop beats",
            "Time since each loop of each service last beat; 30 s is a stall.",
            "s",
            (("edgeseq_service_loop_beat_age_seconds", "{{instance}} {{loop}}"),),
            ZERO,
        ),
        Panel(
            "Consolidations",
            "Where they start by themselves: runs by outcome, and the gain of the base last judged, 0 to 1.",
            "short",
            (
                (
                    "sum by (outcome) (edgeseq_consolidator_runs_total) or vector(0)",
                    "{{outcome}}",
                ),
                ("sum(edgeseq_consolidator_gain_ratio) or vector(0)", "gain"),
            ),
            steps=True,
        ),
        Panel(
            "Paused partitions",
            "Partitions that wait because the fresh part is over its budget or the store is full.",
            "short",
            (("sum(edgeseq_consumer_paused_partitions)", "paused"),),
            ZERO,
            steps=True,
        ),
        Panel(
            "Logs found re-created",
            "Kafka logs that were re-created or truncated, since the services started.",
            "short",
            (("sum(edgeseq_consumer_log_resets_total) or vector(0)", "log resets"),),
            ZERO,
            steps=True,
        ),
    ),
}


def variables() -> list[dict[str, Any]]:
    """The choices at the top of the page."""
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "Prometheus", "value": "prometheus"},
        },
        {
            "name": "task",
            "label": "Task",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(edgeseq_consumer_pairs_total, task)", "refId": "task"},
            "refresh": 2,
            "sort": 1,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def graph(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """One panel in Grafana's words."""
    drawn = {"lineInterpolation": "stepAfter" if panel.steps else "linear", "spanNulls": True}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **panel.limits, "custom": drawn},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(65 + i), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole page: rows of three graphs."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, graphs in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        y += 1
        for i, panel in enumerate(graphs):
            x = i * WIDTH % COLUMNS
            panels.append(graph(panel, len(panels) + 1, x, y + i * WIDTH // COLUMNS * HEIGHT))
        y += -(-len(graphs) * WIDTH // COLUMNS) * HEIGHT
    return {
        "uid": "edgeseq",
        "title": "EdgeSeq",
        "description": "Does it learn, is it fast, what became of every pair and request.",
        "tags": ["edgeseq"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": variables()},
        "annotations": {
            "list": [
                {
                    "name": "Drifts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "orange",
                    "expr": f"increase(edgeseq_learner_drifts_total{TASK}{RATE}) > 0",
                    "titleFormat": "drift",
                    "textFormat": "{{task}}",
                },
                {
                    "name": "Changed signals",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": "increase(edgeseq_learner_drift_alarms_total"
                    f'{{task=~"$task",signal!="loss"}}{RATE}) > 0',
                    "titleFormat": "changed",
                    "textFormat": "{{task}} {{signal}}",
                },
            ]
        },
        "panels": panels,
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.write_text(text())
