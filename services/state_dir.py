"""The folder of one `edgeseq up`: its lock, its state version, and where its servers listen."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from edgeseq_core.errors import ConfigError, ServiceError, StateVersionError
from edgeseq_core.keys import STATE_VERSION
from edgeseq_core.settings import Settings, load_settings

DIRECTORY_VARIABLE = "EDGESEQ_DIR"
DEFAULT_DIRECTORY = Path(".edgeseq")


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a running instance listens; clients find it in ``endpoints.json``."""

    kafka: str
    redis: str
    http: dict[str, int] = field(default_factory=dict)  # service -> port of /metrics


class StateDir:
    """One folder; ``with`` it to own it, as only one process at a time can."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        """One log a child."""
        return self.path / "logs"

    @property
    def store(self) -> Path:
        """What the embedded store keeps."""
        return self.path / "store"

    @property
    def bases(self) -> Path:
        """What the consolidator makes."""
        return self.path / "bases"

    @property
    def _endpoints(self) -> Path:
        return self.path / "endpoints.json"

    def __enter__(self) -> StateDir:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_version()
        except BlockingIOError:
            self._release()
            raise ServiceError(
                f"another `edgeseq up` runs in {self.path}; stop it or choose another --dir"
            ) from None
        except OSError as error:
            self._release()
            raise ConfigError(
                f"the state folder {self.path} cannot be used ({error.strerror}); "
                "choose another --dir"
            ) from None
        except StateVersionError:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._endpoints.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # which also unlocks
            self._lock = None

    def _check_version(self) -> None:
        file = self.path / "version"
        if not file.exists():
            if self.store.exists():
                raise StateVersionError(
                    f"{self.path} holds state but no version file; "
                    "restore the file or choose another --dir"
                )
            _write(file, f"{STATE_VERSION}\n")
            return
        found = file.read_text(errors="replace").strip()
        if found != str(STATE_VERSION):
            raise StateVersionError(
                f"{self.path} holds state of version {found[:20]!r}, this program knows "
                f"{STATE_VERSION}; use the program version that wrote it, or another --dir"
            )

    def publish(self, endpoints: Endpoints) -> None:
        """Let clients find this instance until it stops."""
        _write(self._endpoints, json.dumps(asdict(endpoints)) + "\n")

    def endpoints(self) -> Endpoints | None:
        """Where the running instance listens; None when none runs here."""
        try:
            lock = os.open(self.path / "lock", os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._read_endpoints()
        finally:
            os.close(lock)
        return None  # nobody holds the lock: the file is what a killed instance left

    def _read_endpoints(self) -> Endpoints | None:
        try:
            return Endpoints(**json.loads(self._endpoints.read_text()))
        except (OSError, ValueError, TypeError):
            return None  # it has not published yet


def _write(file: Path, text: str) -> None:
    """Replace a file as a whole; readable only by its owner, as a URL may hold a password."""
    scratch = file.with_name(f".{file.name}.new")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    scratch.replace(file)


def default_directory() -> Path:
    """``EDGESEQ_DIR``, else ``.edgeseq`` in the working folder."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)


def client_settings(directory: Path | None = None, **flags: dict[str, object]) -> Settings:
    """Settings for a command in another terminal: those of the instance that runs in ``directory``.

    What flags, environment or file choose stays; with no instance there, they are plain settings.
    """
    settings = load_settings(**flags)
    running = StateDir(directory or default_directory()).endpoints()
    if running is None:
        return settings
    sections: dict[str, dict[str, object]] = {name: dict(group) for name, group in flags.items()}
    if not settings.chosen("kafka", "bootstrap"):
        sections.setdefault("kafka", {})["bootstrap"] = running.kafka
    if not settings.chosen("redis", "url"):
        sections.setdefault("redis", {})["url"] = running.redis
    for service, port in running.http.items():
        if service in Settings.model_fields and not settings.chosen(service, "http_port"):
            sections.setdefault(service, {})["http_port"] = port
    return load_settings(**sections)
