"""The change of an instance's base, wherever its store is: a running server, or a folder of `edgeseq up`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseq_core.clock import SystemClock
from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.change_base import TaskChange, change_base
from edgeseq_core.model.base_file import read_header
from edgeseq_core.settings import Settings

from .cli.store import open_store
from .state_dir import StateDir, default_directory
from .up import up


def change_stored_base(
    new: Path | None, former: Path | None, *, settings: Settings, directory: Path | None
) -> Iterator[TaskChange]:
    """Change the base of all tasks from the file ``former`` to the file ``new`` (None: the shipped one).

    Raises ConfigError while an `edgeseq up` runs in the folder, or when both are one base.
    """
    before, after = read_header(former), read_header(new)
    if before.digest == after.digest:
        raise ConfigError(
            f"the former and the new base are one ({after.digest[:12]}): name the former one "
            "with --former"
        )
    with reachable(settings, directory) as reached, open_store(reached) as store:
        yield from change_base(
            store.buffer,
            store.registry,
            old=before,
            new=after,
            partitions=store.partitions,
            clock=SystemClock(),
        )


@contextmanager
def reachable(settings: Settings, directory: Path | None) -> Iterator[Settings]:
    """Settings that reach the store; that of a stopped `edgeseq up` is started for the time."""
    if settings.chosen("redis", "url"):
        yield settings
        return
    state = StateDir(directory or default_directory())
    if state.endpoints() is not None:
        raise ConfigError(
            f"an `edgeseq up` runs in {state.path}: stop it, call this again, and start it afterwards"
        )
    if not state.store.exists():
        raise ConfigError(f"{state.path} holds no store: name one with --dir or --redis")
    with up(state.path, services=(), settings=settings) as instance:
        yield instance.settings
