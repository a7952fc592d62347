"""The demo's state folder: begun afresh, but never over the state of anything else."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from edgeseq_core.errors import ConfigError, ServiceError

DEFAULT = Path(".edgeseq-demo")
MARK = "made-by-demo"


def begin(path: Path, *, keep: bool) -> None:
    """Make the folder, or empty it of an earlier demo unless ``keep``.

    Raises ConfigError when it holds other state, ServiceError when a demo runs in it.
    """
    mark = path / MARK
    try:
        if path.exists() and any(path.iterdir()) and not mark.exists():
            if keep:
                return
            raise ConfigError(
                f"{path} holds files that no demo made; choose another --dir, or --keep to go on "
                "with that state"
            )
        path.mkdir(parents=True, exist_ok=True)
        if not keep:
            _empty(path)
        mark.touch()
    except OSError as error:
        raise ConfigError(
            f"the state folder {path} cannot be used ({error.strerror}); choose another --dir"
        ) from None


def _empty(path: Path) -> None:
    """Remove all but the lock, held meanwhile."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in ("lock", MARK):
                with contextlib.suppress(FileNotFoundError):
                    entry.unlink()
    except BlockingIOError:
        raise ServiceError(
            f"another demo runs in {path}; stop it or choose another --dir"
        ) from None
    finally:
        os.close(lock)
