"""The real thing: `up` with all three services, a kill -9 of each child, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseq_core.settings import load_settings
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.doctor import examine
from edgeseq_services.supervisor import Backoff
from edgeseq_services.up import up


def until(holds: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_child_comes_back_after_kill_9_and_none_is_left(tmp_path: Path) -> None:
    settings = load_settings(base={"path": str(write_tiny_base(tmp_path / "base.safetensors"))})
    fast = Backoff(first_s=0.1, last_s=1, stable_s=60)
    with up(tmp_path / "state", settings=settings, backoff=fast) as instance:
        supervisor = instance.supervisor
        assert {f.level for f in examine(instance.settings)} == {"ok"}
        for name in ("consumer", "learner", "predictor", "store", "broker"):
            pid = supervisor.status()[name].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda name=name: supervisor.status()[name].restarts >= 1)  # type: ignore[misc]
            until(lambda: all(s.state == "running" for s in supervisor.status().values()))
            assert supervisor.failed() == []
        until(lambda: {f.level for f in examine(instance.settings)} == {"ok"})
        pids = [s.pid for s in supervisor.status().values()]
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
