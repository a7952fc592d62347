"""Starts children in order, restarts those that die, stops them in reverse; leaves no orphan.

One thread of its own starts, watches and stops every child: a child dies with the thread that
started it (`embedded.process.spawn`), so that thread lives exactly as long as the children do.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgeseq_core.errors import ConfigError, EdgeSeqError, ServiceError

from .embedded.process import last_line, spawn

State = Literal["waiting", "starting", "running", "failed", "held", "stopped"]
_TICK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waits before restarts: ``first_s``, doubling to ``last_s``, afresh after ``stable_s`` up."""

    first_s: float = 0.5
    last_s: float = 30.0
    stable_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """The wait before restart number ``failures``, from 1.

        >>> [Backoff().delay_s(n) for n in (1, 2, 3, 99)]
        [0.5, 1.0, 2.0, 30.0]
        """
        return float(min(self.first_s * 2 ** min(failures - 1, 30), self.last_s))


@dataclass(frozen=True, kw_only=True)
class Child:
    """How to start a child, to see that it is ready, and to stop it."""

    name: str
    command: Callable[[], Sequence[str]]  # asked at each start
    env: Callable[[], Mapping[str, str]] = dict  # asked always: once it differs, it is restarted
    unready: Callable[[], str] = lambda: ""  # why it is not ready; empty when it is
    prepare: Callable[[], object] = lambda: None  # done each time it has become ready
    grace_s: float = 10.0  # from SIGTERM to SIGKILL


class Keeper(Protocol):
    """Holds children back for a while; called by the supervisor's thread."""

    def held_back(self) -> Collection[str]:
        """Names of children that must not run now."""

    def all_stopped(self) -> None:
        """None of them runs any more."""


@dataclass(frozen=True)
class ChildStatus:
    """A child as it is now."""

    state: State
    pid: int | None
    restarts: int


class _Watched:
    """A child with its process; used by the supervisor's thread only, but for ``status``."""

    def __init__(self, child: Child, log: Path) -> None:
        self.child = child
        self.log = log
        self.state: State = "stopped"
        self.process: subprocess.Popen[bytes] | None = None
        self.env: Mapping[str, str] = {}  # that it was started with
        self.restarts = 0
        self.failures = 0  # in a row, each within the stable time
        self.started_s = 0.0
        self.restart_s = 0.0
        self.why = ""

    @property
    def status(self) -> ChildStatus:
        pid = self.process.pid if self.process and self.state != "stopped" else None
        return ChildStatus(self.state, pid, self.restarts)


class Supervisor:
    """Runs tiers of children; a tier starts when the one before is ready, and stops before it."""

    def __init__(
        self,
        tiers: Sequence[Sequence[Child]],
        *,
        logs: Path,
        backoff: Backoff | None = None,
        on_event: Callable[[str], None] = lambda _sentence: None,
        keeper: Keeper | None = None,
    ) -> None:
        self._keeper = keeper
        self._tiers = [[_Watched(c, logs / f"{c.name}.log") for c in tier] for tier in tiers]
        self._all = [watched for tier in self._tiers for watched in tier]
        self._backoff = backoff or Backoff()
        self._on_event = on_event
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._error: EdgeSeqError | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._start_timeout_s = 0.0

    def start(self, *, timeout_s: float = 120.0) -> None:
        """Start all and wait until all are ready; on failure stops all and raises ServiceError."""
        self._start_timeout_s = timeout_s
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C while starting
            self.stop()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Stop all in reverse order and wait; may be called twice."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def status(self) -> dict[str, ChildStatus]:
        """Every child as it is now."""
        return {watched.child.name: watched.status for watched in self._all}

    def failed(self) -> list[str]:
        """One sentence for each child that is not restarted any more."""
        return [watched.why for watched in self._all if watched.state == "failed"]

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the supervisor's thread ----------------------------------------------------------------
    def _run(self) -> None:
        try:
            self._start_all()
        except EdgeSeqError as error:
            self._error = error
            self._stopping.set()
        except Exception as error:
            self._error = ServiceError(f"the supervisor failed ({type(error).__name__}: {error})")
            self._stopping.set()
        finally:
            self._started.set()
        try:
            while not self._stopping.wait(_TICK_S):
                if self._keeper is not None:
                    self._hold_back(self._keeper)
                for watched in self._all:
                    self._watch(watched)
        finally:  # whatever happens, services drain while broker and store still run
            for tier in reversed(self._tiers):
                self._stop(tier)

    def _start_all(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        for tier in self._tiers:
            for watched in tier:
                self._spawn(watched)
            while not all(watched.state == "running" for watched in tier):
                if self._stopping.wait(_TICK_S):
                    return
                for watched in self._all:
                    self._watch(watched)
                    if watched.state == "failed":
                        raise ServiceError(watched.why)
                if time.monotonic() > deadline:
                    late = next(w for w in tier if w.state != "running")
                    raise ServiceError(
                        f"{late.child.name} is not ready after {self._start_timeout_s:.0f} s "
                        f"({late.why or 'it gives no reason'}); see {late.log}"
                    )

    def _spawn(self, watched: _Watched) -> None:
        watched.env = watched.child.env()
        watched.process = spawn(watched.child.command(), log=watched.log, env=watched.env)
        watched.started_s = time.monotonic()
        watched.state = "starting"

    def _hold_back(self, keeper: Keeper) -> None:
        """Stop those that must not run now, and start them once they may."""
        names = keeper.held_back()
        back = [w for w in self._all if w.child.name in names and w.state not in ("held", "failed")]
        if back:
            self._stop(back)
            for watched in back:
                watched.state = "held"
            keeper.all_stopped()
        for watched in self._all:
            if watched.state == "held" and watched.child.name not in names:
                self._start_again(watched)
            elif watched.state == "running" and watched.child.env() != watched.env:
                self._stop([watched])
                self._start_again(watched)

    def _start_again(self, watched: _Watched) -> None:
        """At once, without counting it as a restart."""
        try:
            self._spawn(watched)
        except EdgeSeqError as error:
            self._died(watched, str(error), time.monotonic())

    def _watch(self, watched: _Watched) -> None:
        now = time.monotonic()
        if watched.state == "waiting" and now >= watched.restart_s:
            watched.restarts += 1
            try:
                self._spawn(watched)
            except EdgeSeqError as error:
                self._died(watched, str(error), now)
        elif watched.state in ("starting", "running"):
            code = watched.process.poll() if watched.process else None
            if code is not None:
                line = last_line(watched.log)
                name = watched.child.name
                if code == ConfigError.exit_code:
                    watched.state = "failed"
                    watched.why = f"{name} cannot run: {line or 'no reason given'}"
                    self._on_event(watched.why)
                else:
                    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                    detail = f" ({line})" if line and code > 0 else ""
                    self._died(watched, f"{name} {how}{detail}", now)
            elif watched.state == "starting":
                self._settle(watched)

    def _settle(self, watched: _Watched) -> None:
        """A starting child that has become ready is prepared and runs."""
        watched.why = watched.child.unready()
        if watched.why:
            return
        try:
            watched.child.prepare()
        except EdgeSeqError as error:
            watched.why = str(error)
            if not error.retryable:
                watched.state = "failed"
                self._on_event(watched.why)
            return
        watched.state = "running"
        if watched.restarts:
            self._on_event(f"{watched.child.name} is ready again")

    def _died(self, watched: _Watched, how: str, now: float) -> None:
        if now - watched.started_s > self._backoff.stable_s:
            watched.failures = 0
        watched.failures += 1
        delay_s = self._backoff.delay_s(watched.failures)
        watched.restart_s = now + delay_s
        watched.state = "waiting"
        watched.why = how
        self._on_event(f"{how}; it is started again in {delay_s:g} s, its log is {watched.log}")

    def _stop(self, tier: Sequence[_Watched]) -> None:
        """Ask a whole tier at once, then wait for each; insist when its time is up."""
        alive = [w for w in tier if w.process is not None and w.process.poll() is None]
        asked_s = time.monotonic()
        for watched in alive:
            if watched.process is not None:
                watched.process.terminate()
        for watched in alive:
            if watched.process is None:
                continue
            left_s = asked_s + watched.child.grace_s - time.monotonic()
            try:
                watched.process.wait(max(left_s, 0))
            except subprocess.TimeoutExpired:
                watched.process.kill()
                watched.process.wait()
                self._on_event(
                    f"{watched.child.name} did not stop within {watched.child.grace_s:g} s "
                    "and was killed"
                )
        for watched in tier:
            if watched.state != "failed":
                watched.state = "stopped"
