"""The demo: its parts, and a short real run that serves on until Ctrl-C and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from edgeseq_core.client import Client
from edgeseq_core.errors import ConfigError, ServiceError
from edgeseq_core.learn.offline import OfflineLearner
from edgeseq_core.settings import LearningSettings
from edgeseq_core.telemetry.metrics import LearnerMetrics
from edgeseq_core.testing.base import tiny_base, write_tiny_base
from edgeseq_services.demo import folder, view
from edgeseq_services.demo.board import Board
from edgeseq_services.demo.measures import Pace, Samples
from edgeseq_services.demo.plan import FLIP_PHASE, Lesson, Order
from edgeseq_services.demo.story import Unchanged, fill_in
from edgeseq_services.demo.watching import LearnerView, Served, read_metrics, settled
from edgeseq_services.state_dir import StateDir

HELD_OUT = (("walk VBD", "walked"), ("try VBZ", "tries"))
AT_PAIR_0 = ("walk VBD", "tri")


def board_with_answers() -> Board:
    board = Board([("english-inflection", "english-inflection", 3), ("dates", "dates", 5)])
    phase = board.phases[0]
    lesson = Lesson(phase.name, (("cry VBZ", "cries"),), HELD_OUT, AT_PAIR_0)
    fill_in(phase, lesson)
    phase.show(HELD_OUT, AT_PAIR_0)
    board.active, phase.status = phase, "learning"
    board.answered(phase, HELD_OUT, AT_PAIR_0, ("walked", "trys"))
    phase.snapshot_id = "english-inflection-12-0123456789ab"
    return board


def painted(what: Any, width: int) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(what)
    console.file.close()
    return console.export_text()


# --- measures -------------------------------------------------------------------------------------
def test_a_slow_learner_is_never_more_than_the_window_behind() -> None:
    pace, sent, learnt, most = Pace(rate=20, ahead=40, now_s=0.0), 0, 0.0, 0.0
    for tick in range(1, 400):
        learnt = min(sent, learnt + 0.25 * 5)  # five pairs a second
        sent += pace.due(now_s=tick * 0.25, backlog=sent - int(learnt))
        most = max(most, sent - learnt)
    assert most <= 41
    assert sent == pytest.approx(100 * 5 + 40, abs=10)  # what it learnt, and the window


def test_a_fast_learner_gets_the_whole_rate() -> None:
    pace = Pace(rate=12.5, ahead=50, now_s=0.0)
    assert sum(pace.due(now_s=tick * 0.25, backlog=0) for tick in range(1, 401)) == 1250


def test_samples_give_percentiles_and_none_of_nothing() -> None:
    samples = Samples()
    assert samples.as_dict(50, 99) == {"count": 0, "p50": None, "p99": None}
    for value in (0.3, 0.1, 0.2):
        samples.add(value)
    assert samples.as_dict(50, 99) == {"count": 3, "p50": 0.2, "p99": 0.3}


# --- what it reads --------------------------------------------------------------------------------
def test_the_learners_metrics_are_read_under_the_names_it_gives_them() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    metrics.prequential_accuracy_ratio.labels("dates").set(0.75)
    metrics.gate.labels("dates", "promote").inc(3)
    metrics.gate.labels("dates", "hold").inc()
    metrics.drifts.labels("dates").inc(2)
    metrics.drift_flag.labels("dates").set(1)
    metrics.prequential_accuracy_ratio.labels("verbs").set(0.5)
    views = read_metrics(generate_latest(registry).decode())
    assert views["dates"] == LearnerView(
        prequential=0.75, promoted=3, held=1, drifts=2, drift_flag=True
    )
    assert views["verbs"].promoted == 0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As services compute; on a busy machine more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_journal_is_settled_exactly_when_the_learner_has_nothing_more_to_do(
    tmp_path: Path,
) -> None:
    config = LearningSettings(fresh_per_step=4, replay_per_step=4)
    learner = OfflineLearner(tiny_base(tmp_path), config)
    for _ in range(2):
        start = len(learner.buffer.journal("t"))
        learner.ingest("t", [(f"s{n}", f"t{n}") for n in range(10)])
        seen = []
        while learner.loop.run_once() is not None:
            journal = learner.buffer.journal("t", after=start)
            seen.append(settled(journal, config.rehearsals_per_step))
        assert seen[-1]
        assert not any(seen[:-1])


# --- the board and its view -----------------------------------------------------------------------
def test_the_first_answer_that_became_right_is_noted_once() -> None:
    board = board_with_answers()
    first = board.first_right
    assert first is not None
    assert (first.phase, first.source, first.answer) == ("english-inflection", *HELD_OUT[0])
    board.answered(board.phases[0], HELD_OUT, AT_PAIR_0, ("walked", "tries"))
    assert board.first_right is first
    assert board.phases[0].held_out == 1.0


def test_what_was_right_at_pair_0_is_no_progress() -> None:
    board = board_with_answers()
    board.first_right = None
    board.answered(board.phases[0], HELD_OUT, ("walked", "tri"), ("walked", "tri"))
    assert board.first_right is None


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_shows_scores_floors_and_answers(width: int) -> None:
    text = painted(view.screen(board_with_answers(), width=width), width)
    assert "walk VBD → walked" in text
    assert "50%" in text
    row = next(line for line in text.splitlines() if "walk VBD" in line and "✓" in line)
    assert row.split() == ["walk", "VBD", "walk", "VBD", "walked", "✓", "walked"]
    assert "trys" in next(line for line in text.splitlines() if "✗" in line)
    assert "12-012345" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_the_line_for_a_log_names_phase_and_scores() -> None:
    board = board_with_answers()
    board.doing = "teaching english-inflection"
    text = view.line(board)
    assert "held-out 50% (pair 0 0%, copying 0%, suffix rules –)" in text
    assert "english-inflection-12-0123456789ab" in text


def test_a_task_that_changed_without_pairs_is_shouted_at() -> None:
    board = board_with_answers()
    served, other = Served("a-1-00", "d1"), Served("a-2-00", "d2")
    equal = Unchanged(
        phase="english-inflection", later_pairs=False, same_bytes=True, same_answers=True,
        before=served, after=served,
    )  # fmt: skip
    differs = Unchanged(
        phase="dates", later_pairs=False, same_bytes=False, same_answers=True,
        before=served, after=other,
    )  # fmt: skip
    text = painted(view.results(board, [equal, differs]), 120)
    assert "bytes, answers equal" in text
    assert "BYTES DIFFER" in text


def test_commands_name_the_folder_and_a_held_out_source() -> None:
    shown = [command for command, _ in view.commands("edgeseq", "here", board_with_answers())]
    assert shown[0] == 'edgeseq predict english-inflection "walk VBD" --dir here'
    assert all(command.endswith("--dir here") for command in shown)


# --- order and folder -----------------------------------------------------------------------------
def test_the_flip_comes_last_and_only_with_dates() -> None:
    assert Order().phases()[-1] == (FLIP_PHASE, "dates", 1500)
    assert Order(tasks=("german-plurals",)).phases() == [("german-plurals", "german-plurals", 2000)]
    with pytest.raises(ConfigError, match="no task 'chess'; it has dates"):
        Order(tasks=("chess",))


def test_a_folder_is_begun_afresh_unless_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    folder.begin(path, keep=False)
    (path / "store").mkdir()
    folder.begin(path, keep=True)
    assert (path / "store").exists()
    folder.begin(path, keep=False)
    assert not (path / "store").exists()


def test_other_state_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(ConfigError, match="no demo made; choose another --dir"):
        folder.begin(tmp_path, keep=False)
    assert (tmp_path / "store").exists()


def test_a_running_demo_is_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "state"
    folder.begin(path, keep=False)
    (path / "store").mkdir()
    (path / "version").write_text("1\n")
    with StateDir(path), pytest.raises(ServiceError, match="another demo runs in"):
        folder.begin(path, keep=False)
    assert (path / "store").exists()


# --- the real thing -------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_demo_teaches_reports_serves_on_and_stops_cleanly(tmp_path: Path) -> None:
    state = tmp_path / "state"
    base = write_tiny_base(tmp_path / "base.safetensors")
    command = [
        *(sys.executable, "-m", "edgeseq_services.cli", "demo", "--json", "--dir", str(state)),
        *("--pairs", "60", "--flip-pairs", "0", "--tasks", "dates", "english-inflection"),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "EDGESEQ_BASE__PATH": str(base)},
        start_new_session=True,
    ) as demo:
        try:
            updates, result = read_until_summary(demo)
            running = StateDir(state).endpoints()
            assert running is not None
            with Client(running.kafka) as client:  # it serves on
                answer = client.predict("dates", "4 May 2026")
            assert answer.snapshot_id == result["phases"][0]["snapshot_id"]
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
    assert StateDir(state).endpoints() is None
    assert left_behind(state) == []

    assert {u["doing"] for u in updates} >= {"teaching dates", "teaching english-inflection"}
    for phase in result["phases"]:
        assert phase["status"] == "done"
        assert (phase["sent"], phase["learnt"]) == (60, 60)
        assert phase["promoted"] >= 1
        assert phase["at_pair_0"] == 0.0  # random weights
        assert None not in [phase[k] for k in ("at_end", "final", "copying", "suffix_rules")]
        assert any(e["now"] not in (None, e["before"]) for e in phase["examples"])
    for compared in result["unchanged"]:
        assert compared["same_bytes"]
        assert compared["same_answers"]
        assert compared["before"]["snapshot_id"] == compared["after"]["snapshot_id"]
    assert result["freshness_s"]["count"] + result["freshness_s"]["held_out"] > 0
    assert result["reply_latency_s"]["count"] > 0
    assert result["resident_mb"]["learner"] > 0
    assert json.loads((state / "summary.json").read_text()) == result


def read_until_summary(demo: subprocess.Popen[str]) -> tuple[list[Any], Any]:
    assert demo.stdout is not None
    updates = []
    for line in demo.stdout:
        event = json.loads(line)
        if event["event"] == "summary":
            return updates, event
        if event["event"] == "update":
            updates.append(event)
    raise AssertionError(f"the demo ended with {demo.wait()} and no summary")


def left_behind(state: Path) -> list[str]:
    """Command lines of processes that still name the state folder."""
    found = []
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = [
            text
            for entry in Path("/proc").glob("[0-9]*/cmdline")
            if str(state) in (text := _read(entry))
        ]
        if not found:
            break
        time.sleep(0.05)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().replace("\0", " ")
    except OSError:
        return ""
