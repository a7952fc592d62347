"""The loop as a newcomer meets it: `edgeseq up` in one terminal, commands in another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.embedded.ports import free_port

START_S = 90
LEARN_S = 60
COMMAND = (sys.executable, "-m", "edgeseq_services.cli")


class Terminal:
    """Runs commands against the instance in one folder."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.directory, self.env = directory, env

    def start(self) -> subprocess.Popen[str]:
        """`edgeseq up`, once it says that it is ready."""
        process = subprocess.Popen(
            [*COMMAND, "up", "--dir", str(self.directory), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "ready":
                return process
        pytest.fail("edgeseq up ended before it was ready")

    def run(self, *arguments: str, code: int | None = 0) -> list[Any]:
        """What a command prints as JSON; with code None it may fail."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--dir", str(self.directory), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.env,
            check=False,
        )
        assert code is None or done.returncode == code, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def until(self, arguments: tuple[str, ...], **wanted: Any) -> dict[str, Any]:
        """Ask until the first object has these values."""
        deadline, found = time.monotonic() + LEARN_S, {}
        while time.monotonic() < deadline:
            (found,) = self.run(*arguments, code=None)
            if wanted.items() <= found.items():
                return found
        pytest.fail(f"{arguments}: {wanted} did not come, but {found}")

    def until_learnt(self, count: int) -> None:
        """Wait until so many pairs are learnt or held out, and the task is not being learnt anew."""
        deadline = time.monotonic() + LEARN_S
        while time.monotonic() < deadline:
            tasks = self.run("status")[0]["tasks"]
            for task in tasks:
                parts = task["buffer_pairs"]
                taken = task["learnt"] + parts["recent"] + parts["probe"]
                if taken == count and task["champion"] and not task["relearning"]:
                    return
        pytest.fail(f"{count} pairs were not learnt, but {tasks}")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    env = {**os.environ, "EDGESEQ_BASE__PATH": str(write_tiny_base(tmp_path / "base.safetensors"))}
    for service in ("CONSUMER", "LEARNER", "PREDICTOR"):
        env[f"EDGESEQ_{service}__HTTP_PORT"] = str(free_port())
    return Terminal(tmp_path / "state", env)


@pytest.mark.slow
@pytest.mark.timeout(START_S + 5 * LEARN_S)
def test_teach_ask_correct_and_roll_back(terminal: Terminal, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    pairs.write_text("".join(f"source {n}\ttarget {n % 7}\n" for n in range(200)) + "no pair\n")
    instance = terminal.start()
    try:
        assert (
            terminal.run("predict", "mine", "source 1", code=1)[0]["error"]["code"]
            == "unknown_task"
        )
        (taught,) = terminal.run("teach", "mine", str(pairs), "--id-prefix", "file")
        assert (taught["count"], taught["malformed_count"]) == (200, 1)

        (correction,) = terminal.run("correct", "mine", "source 1", "one")
        named = ("mine", "edgeseq-cli", correction["pair_id"])
        learnt = terminal.until(("pair", *named), state="trained", in_champion=True)
        assert learnt["snapshot_id"].startswith("mine-")

        (answer,) = terminal.run("predict", "mine", "source 1")
        assert answer["error"] is None
        served = {one["snapshot_id"] for one in terminal.run("snapshots", "mine", "--limit", "0")}
        assert answer["snapshot_id"] in served

        (again,) = terminal.run("teach", "mine", str(pairs), "--id-prefix", "file")
        assert again["count"] == 200
        terminal.run("correct", "mine", "source 2", "two")
        (status,) = terminal.run("status")[0]["tasks"]
        total = status["learnt"] + sum(status["buffer_pairs"][p] for p in ("recent", "probe"))
        assert (
            total + status["waiting_bulk"] + status["waiting_corrections"] <= 202
        )  # no pair twice

        (back,) = terminal.run("rollback", "mine", "--reason", "a test")
        assert back["ok"]
        terminal.until(("predict", "mine", "source 1"), snapshot_id=back["champion"])
        assert terminal.run("status")[0]["tasks"][0]["pinned"]
        assert {one["level"] for one in terminal.run("doctor")} <= {"ok", "warning"}
    finally:
        instance.send_signal(signal.SIGTERM)
        instance.communicate(timeout=60)
    assert instance.returncode == 0
    terminal.run("predict", "mine", "source 1", code=2)  # nothing runs there any more


@pytest.mark.slow
@pytest.mark.timeout(START_S + 3 * LEARN_S)
def test_the_nearest_task_answers_where_none_is_named(terminal: Terminal, tmp_path: Path) -> None:
    days = [f"{1 + n % 28} of month {1 + n % 12} in {1950 + n}" for n in range(130)]
    words = [f"{a}{b}{c}{d}ing" for a in "bdfgl" for b in "aeou" for c in "dlt" for d in "rn"]
    instance = terminal.start()
    try:
        for task, sources in (("days", days), ("words", words)):
            file = tmp_path / task
            file.write_text("".join(f"{source}\t{source[:3]}\n" for source in sources[1:]))
            terminal.run("teach", task, str(file))
        for task, source in (("days", days[0]), ("words", words[0])):
            found = terminal.until(("predict", "--infer", source), task=task)
            assert found["error"] is None
            assert found["snapshot_id"].startswith(f"{task}-")
            assert found["task_confidence"] > 0.9
        (strange,) = terminal.run("predict", "--infer", "@@@@@@@@@@@@", code=1)
        assert (strange["task"], strange["error"]["code"]) == (None, "missing_task")
        (named,) = terminal.run("predict", "days", words[0])
        assert (named["task"], named["task_confidence"]) == ("days", None)
    finally:
        instance.send_signal(signal.SIGTERM)
        instance.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(3 * START_S + 5 * LEARN_S)
def test_the_base_is_changed_between_two_runs_and_back(terminal: Terminal, tmp_path: Path) -> None:
    pairs, new = tmp_path / "pairs", str(write_tiny_base(tmp_path / "new.safetensors", seed=7))
    pairs.write_text("".join(f"source {n}\ttarget {n % 7}\n" for n in range(200)))
    former = terminal.env["EDGESEQ_BASE__PATH"]
    left: dict[str, str] = {}
    way_back = None
    for base, other in ((former, new), (new, former), (former, new)):
        terminal.env["EDGESEQ_BASE__PATH"] = base
        instance = terminal.start()
        try:
            if not left:
                terminal.run("teach", "mine", str(pairs))
            terminal.until_learnt(200)
            answer = terminal.until(("predict", "mine", "source 1"), error=None)
            if way_back is not None:
                assert answer["snapshot_id"] == way_back
            left[base] = answer["snapshot_id"]
            assert terminal.run("base", "change", other, code=2) == []  # it runs
        finally:
            instance.send_signal(signal.SIGTERM)
            instance.communicate(timeout=60)
        (changed,) = terminal.run("base", "change", other)
        assert (changed["rewritten"], changed["too_long"], changed["evicted"]) == (200, 0, 0)
        way_back = changed["snapshot_id"]
        assert (way_back is None, changed["relearns"]) == (other not in left, other not in left)
    assert len(set(left.values())) == 2


@pytest.mark.slow
@pytest.mark.timeout(START_S + 4 * LEARN_S)
def test_a_pair_is_purged_while_the_task_is_served(terminal: Terminal, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    pairs.write_text("".join(f"source {n}\ttarget {n % 7}\n" for n in range(100)))
    instance = terminal.start()
    try:
        terminal.run("teach", "mine", str(pairs), "--id-prefix", "file")
        terminal.until_learnt(100)
        purged = ("mine", "--producer", "edgeseq-cli", "--pair", "file:5")
        (receipt,) = terminal.run("purge", *purged, "--wait", str(LEARN_S - 5))
        assert (len(receipt["removed"]), receipt["relearnt"]) == (1, True)
        assert terminal.run("pair", "mine", "edgeseq-cli", "file:5")[0]["state"] == "forgotten"
        answer = terminal.until(("predict", "mine", "source 1"), error=None)
        assert answer["snapshot_id"] not in receipt["snapshots_deleted"]
        (checked,) = terminal.run("receipts", "mine")
        assert checked == receipt
    finally:
        instance.send_signal(signal.SIGTERM)
        instance.communicate(timeout=60)
    assert instance.returncode == 0
