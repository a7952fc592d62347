"""Real children: restarted after kill -9, stopped in order, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgeseq_core.errors import ServiceError
from edgeseq_services.supervisor import Backoff, Child, Supervisor

FAST = Backoff(first_s=0.1, last_s=0.4, stable_s=30)
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); " + SLEEPER
POLITE = """
import signal, sys, time
def stop(*_):
    open(sys.argv[1], "a").write(sys.argv[2] + chr(10)); sys.exit(0)
signal.signal(15, stop); print("up", flush=True); time.sleep(600)
"""


def until(holds: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX"
    return False


def child(name: str, logs: Path, code: str = SLEEPER, *arguments: str, **more: object) -> Child:
    """A child that is ready once it has written to its log in this life."""
    log = logs / f"{name}.log"
    lives = 0

    def command() -> list[str]:
        nonlocal lives
        lives = log.read_text().count("up\n") if log.exists() else 0
        return [sys.executable, "-c", code, *arguments]

    def unready() -> str:
        return "" if log.exists() and log.read_text().count("up\n") > lives else "it is not up yet"

    return Child(name=name, command=command, unready=unready, **more)  # type: ignore[arg-type]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(*tiers: list[Child], **arguments: object) -> Supervisor:
        arguments.setdefault("backoff", FAST)
        made.append(Supervisor(tiers, logs=tmp_path, **arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop()


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.status()[name].pid
    assert pid is not None
    return pid


def test_a_killed_child_is_restarted_and_prepared_again(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    prepared: list[int] = []
    events: list[str] = []
    supervisor = supervise(
        [child("broker", tmp_path, prepare=lambda: prepared.append(1))], on_event=events.append
    )
    supervisor.start(timeout_s=15)
    first = pid_of(supervisor, "broker")
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.status()["broker"].restarts == 1)
    until(lambda: supervisor.status()["broker"].state == "running")
    assert pid_of(supervisor, "broker") != first
    assert len(prepared) == 2
    assert events[0].startswith("broker was killed by signal 9; it is started again in 0.1 s")
    assert events[-1] == "broker is ready again"


def test_the_wait_grows_while_a_child_keeps_dying(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    events: list[str] = []
    code = "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
    crash = Child(
        name="learner", command=lambda: [sys.executable, "-c", code], unready=lambda: "no"
    )
    supervisor = supervise([crash], on_event=events.append)
    with pytest.raises(ServiceError, match="learner is not ready after 6 s"):
        supervisor.start(timeout_s=6)
    waits = [e.split("again in ")[1].split(" s")[0] for e in events[:4]]
    assert waits == ["0.1", "0.2", "0.4", "0.4"]
    assert "learner ended with code 3 (no luck)" in events[0]


def test_a_wrong_setting_is_not_tried_again_and_is_said(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    code = "import sys; print('edgeseq learner: no base there', file=sys.stderr); sys.exit(2)"
    wrong = Child(
        name="learner", command=lambda: [sys.executable, "-c", code], unready=lambda: "no"
    )
    good = child("store", tmp_path)
    supervisor = supervise([good], [wrong])
    with pytest.raises(ServiceError, match="learner cannot run: edgeseq learner: no base there"):
        supervisor.start(timeout_s=15)
    assert supervisor.status()["store"].state == "stopped"


def test_stop_goes_in_reverse_order_and_leaves_no_child(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    order = tmp_path / "order"
    tiers = [[child(n, tmp_path, POLITE, str(order), n)] for n in ("store", "broker", "consumer")]
    supervisor = supervise(*tiers)
    supervisor.start(timeout_s=15)
    pids = [pid_of(supervisor, name) for name in ("store", "broker", "consumer")]
    supervisor.stop()
    assert order.read_text().split() == ["consumer", "broker", "store"]
    assert not any(alive(pid) for pid in pids)


def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    events: list[str] = []
    stubborn = child("learner", tmp_path, STUBBORN, grace_s=0.3)
    supervisor = supervise([stubborn], on_event=events.append)
    supervisor.start(timeout_s=15)
    pid = pid_of(supervisor, "learner")
    supervisor.stop()
    assert not alive(pid)
    assert events == ["learner did not stop within 0.3 s and was killed"]


_PARENT = """
import sys, time
from pathlib import Path
from edgeseq_services.supervisor import Child, Supervisor
code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
tier = [Child(name=f"c{i}", command=lambda: [sys.executable, "-c", code]) for i in range(3)]
supervisor = Supervisor([tier], logs=Path(sys.argv[1]))
supervisor.start()
print(*(s.pid for s in supervisor.status().values()), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only the Linux kernel ties a child to its parent"
)
def test_kill_9_of_the_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        parent.kill()
    until(lambda: not any(alive(pid) for pid in pids), timeout_s=5)


def test_a_command_that_does_not_exist_is_one_sentence(
    supervise: Callable[..., Supervisor],
) -> None:
    supervisor = supervise([Child(name="broker", command=lambda: ["/nowhere/tansu"])])
    with pytest.raises(ServiceError, match="/nowhere/tansu cannot be started"):
        supervisor.start(timeout_s=5)


class Holder:
    """Holds some children back while it is told to."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.stopped = 0

    def held_back(self) -> tuple[str, ...]:
        return self.names

    def all_stopped(self) -> None:
        self.stopped += 1


def test_children_that_are_held_back_stop_and_start_again(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    holder = Holder()
    supervisor = supervise([child(n, tmp_path) for n in ("consumer", "predictor")], keeper=holder)
    supervisor.start(timeout_s=15)
    pids = [pid_of(supervisor, name) for name in ("consumer", "predictor")]
    holder.names = ("consumer",)
    until(lambda: supervisor.status()["consumer"].state == "held")
    until(lambda: holder.stopped == 1)
    assert [alive(pid) for pid in pids] == [False, True]
    time.sleep(0.3)
    assert supervisor.status()["consumer"].state == "held"
    holder.names = ()
    until(lambda: supervisor.status()["consumer"].state == "running")
    assert supervisor.status()["consumer"].restarts == 0  # it did nothing wrong
    assert pid_of(supervisor, "predictor") == pids[1]
    assert holder.stopped == 1


def test_a_child_whose_environment_has_changed_is_restarted_with_it(
    tmp_path: Path, supervise: Callable[..., Supervisor]
) -> None:
    base = {"BASE": "old"}
    code = "import os; print(os.environ['BASE'], flush=True); " + SLEEPER
    mine = child("learner", tmp_path, code, env=lambda: base)
    other = child("consumer", tmp_path)
    supervisor = supervise([mine, other], keeper=Holder())
    supervisor.start(timeout_s=15)
    before = supervisor.status()
    base = {"BASE": "new"}
    until(lambda: "new" in (tmp_path / "learner.log").read_text())
    until(lambda: supervisor.status()["learner"].state == "running")
    assert pid_of(supervisor, "learner") != before["learner"].pid
    assert (tmp_path / "learner.log").read_text().split() == ["old", "up", "new", "up"]
    assert supervisor.status()["consumer"] == before["consumer"]
