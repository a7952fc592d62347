"""Child processes that cannot outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeseq_core.errors import ServiceError

_PR_SET_PDEATHSIG = 1
_LOG_LIMIT_BYTES = 20 << 20
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def spawn(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output appended to ``log``; raises ServiceError when it cannot.

    The child has a session of its own, so Ctrl-C reaches only the parent, which then stops children
    in order.  On Linux the kernel kills it when the *thread* that started it ends, ``kill -9``
    included: start children from a thread that lives as long as they should.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent died before the kernel was told
                os._exit(1)

    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # only async-signal-safe calls in it
            )
        except OSError as error:
            raise ServiceError(
                f"{command[0]} cannot be started ({error.strerror}); check the installation"
            ) from None


def stop(process: subprocess.Popen[bytes], *, grace_s: float) -> int:
    """Ask with SIGTERM, insist with SIGKILL after ``grace_s``; returns the exit code."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(grace_s)
        process.kill()
    return process.wait()


def last_line(log: Path, *, limit_bytes: int = 4096) -> str:
    """The last line of a log that is not empty, for an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - limit_bytes))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
