"""Wrong arguments, files and addresses: one sentence, the right exit code, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def _process(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "edgeseq_services.cli", *arguments],
        input=stdin,
        capture_output=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("predict",),
        ("predict", "dates"),
        ("predict", "5 May 2026"),
        ("predict", "5 May 2026", "6 May 2026"),
        ("predict", "--infer"),
        ("predict", "--infer", "text", "--file", "also"),
        ("predict", "dates", "text", "--file", "also"),
        ("predict", "dates", "text", "--priority", "urgent"),
        ("predict", "dates", "text", "--timeout", "soon"),
        ("teach", "dates"),
        ("teach", "dates", "/no/such/file"),
        ("tasks", "set", "No Task"),
        ("tasks", "set", "dates", "--abstain-below", "2"),
        ("snapshots", "No Task"),
        ("learn", "dates", "/no/such/file"),
        ("learn", "dates", "-", "--out", "/no/such/folder/x"),
        ("bench", "learning", "--out", "/no/such/folder", "--stream", "nonsense"),
        ("bench", "learning", "--out", "/no/such/folder", "--method", "nonsense"),
        ("bench", "learning", "--out", "/no/such/folder", "--pairs", "0"),
        ("bench", "engine", "--out", "/no/such/folder", "--rounds", "0"),
        ("bench", "engine", "--out", "/proc/nothing"),
        ("bench", "fetch", "--data", "/proc/nothing"),
        ("report", "/no/such/folder"),
        ("pretrain", "/no/such/folder/x"),
        ("pretrain", "base.safetensors", "--preset", "1"),
        ("size", "--max-mb", "0.001"),
        ("prune", "base.safetensors", "--ffn-share", "1"),
        ("predict", "dates", "text", "--dir", "/no/such/instance"),
        ("predict", "dates", "text", "--kafka", "nonsense:port"),
    ],
)
def test_usage_and_configuration_exit_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 1
    as_json = run(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.error["message"]
    assert as_json.error["retryable"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "dates", "text", "--kafka", "127.0.0.1:1"),
        ("status", "--redis", "redis://127.0.0.1:1/0"),
        ("tasks", "list", "--redis", "redis://127.0.0.1:1/0"),
        ("dlq", "list", "--kafka", "127.0.0.1:1"),
    ],
)
def test_a_server_that_is_not_there_exits_with_1(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, "--json")
    assert ran.code == 1
    assert ran.error["retryable"] is True
    assert "127.0.0.1:1" in ran.error["message"]


def test_config_is_shown_without_passwords(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEQ_KAFKA__SASL_PASSWORD", "hunter2")
    ran = run("config", "show", "--redis", "redis://me:hunter3@cache:6379/0", "--json")
    assert ran.code == 0
    assert "hunter" not in ran.out
    assert ran.documents[0]["redis"]["url"] == "redis://***@cache:6379/0"
    text = run("config", "show", "--kafka", "broker:9092")
    assert 'bootstrap = "broker:9092"' in text.out
    assert "hunter" not in text.out


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEQ_KAFKA__PARTITIONS", "none")
    ran = run("config", "show")
    assert ran.code == 2
    assert "kafka.partitions" in ran.err


def test_help_of_every_command(run: Run) -> None:
    commands = ["up", "demo", "doctor", "status", "teach", "predict", "correct", "pair", "tasks"]
    commands += ["snapshots", "promote", "pin", "unpin", "rollback", "dlq", "learn", "pretrain"]
    commands += ["prune", "size", "config"]
    listed = run("--help").out
    for command in commands:
        assert f"│ {command} " in listed
        ran = run(command, "--help")
        assert ran.code == 0
        assert ran.out.startswith(f"Usage: edgeseq {command}")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from edgeseq_services.cli import main; main(['--help']); "
        "heavy = {'torch', 'kafka', 'redis', 'pydantic', 'numpy', 'river'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr


def test_as_a_process() -> None:
    done = _process("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    wrong = _process("predict", "dates", "x", "--kafka", "127.0.0.1:1", "--json")
    assert wrong.returncode == 1
    assert wrong.stdout == b""
    assert json.loads(wrong.stderr)["error"]["type"] == "BrokerUnavailableError"


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    program = f"{sys.executable} -m edgeseq_services.cli config show --json | true"
    done = subprocess.run(["bash", "-c", program], capture_output=True, timeout=20, check=False)
    assert b"Traceback" not in done.stderr
