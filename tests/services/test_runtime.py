"""A service process: ready, stalled, drained, failed; real signals, real exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeseq_services.embedded.ports import free_port

_MODULE = """
import sys, threading, time
from edgeseq_core.errors import ConfigError, StoreUnavailableError
from edgeseq_services.runtime import run_service

class Service:
    rounds = 0
    def __init__(self, context):
        self.context = context
    def run_once(self):
        self.rounds += 1
        {body}
        time.sleep(0.02)
    def drain(self):
        print("drained after", self.rounds, flush=True)

def build(context):
    {build}
    return Service(context)

sys.exit(run_service("consumer", build, stall_limit_s={limit}))
"""


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    def get(self, path: str) -> tuple[int, list[str]]:
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, json.load(answer)["reasons"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["reasons"]
        except OSError:
            return 0, []

    def until(self, path: str, status: int) -> list[str]:
        deadline = time.monotonic() + 15
        while True:
            got, reasons = self.get(path)
            if got == status:
                return reasons
            assert time.monotonic() < deadline, (got, reasons)
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, out, err


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(body: str = "pass", build: str = "pass", limit: float = 30, **env: str) -> Running:
        port = free_port()
        file = tmp_path / "service.py"
        file.write_text(textwrap.dedent(_MODULE).format(body=body, build=build, limit=limit))
        process = subprocess.Popen(
            [sys.executable, str(file)],
            env={**os.environ, "EDGESEQ_CONSUMER__HTTP_PORT": str(port), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Running(process, port)

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_with_0(start: Start, number: signal.Signals) -> None:
    service = start()
    service.until("/readyz", 200)
    service.process.send_signal(number)
    code, out, err = service.finish()
    assert code == 0, err
    assert out.startswith("drained after")
    assert [json.loads(line)["event"] for line in err.splitlines()] == [
        "started",
        "draining",
        "drained",
    ]


def test_an_error_on_purpose_is_one_sentence_and_its_exit_code(start: Start) -> None:
    service = start(build="raise ConfigError('the policy is wrong; set noeviction')")
    assert service.finish() == (
        2,
        "",
        "edgeseq consumer: the policy is wrong; set noeviction\n",
    )


def test_a_wrong_setting_is_one_sentence(start: Start) -> None:
    code, _, err = start(EDGESEQ_CONSUMER__MAX_BATCH="none").finish()
    assert code == 2
    assert "consumer.max_batch" in err
    assert err.count("\n") == 1


def test_a_defect_is_logged_and_exits_with_70(start: Start) -> None:
    code, out, err = start(body="{}['x']").finish()
    assert code == 70
    assert out == ""
    last = json.loads(err.splitlines()[-1])
    assert (last["event"], last["error"]) == ("defect", "KeyError")


def test_a_retryable_error_makes_it_unready_and_is_tried_again(start: Start) -> None:
    body = "if self.rounds < 5: raise StoreUnavailableError('no store at x; start it')"
    service = start(body=body)
    service.until("/readyz", 200)
    service.process.terminate()
    code, _, err = service.finish()
    assert code == 0
    events = [json.loads(line) for line in err.splitlines()]
    assert sum(e.get("reason") == "no store at x; start it" for e in events) == 4


def test_a_stalled_loop_makes_healthz_fail(start: Start) -> None:
    service = start(body="time.sleep(60 if self.rounds > 3 else 0)", limit=0.5)
    reasons = service.until("/healthz", 503)
    assert "main has not beaten" in reasons[0]


def test_a_dead_side_loop_ends_the_service(start: Start) -> None:
    body = "self.context.health.fail('poller', 'KeyError')"
    code, _, err = start(body=body).finish()
    assert code == 1
    assert "poller has died: KeyError" in err.splitlines()[-1]
