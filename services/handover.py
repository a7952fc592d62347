"""How a consolidator gets consumer and learner out of the way while it publishes, and all agree on the base.

It asks with a file in the folder of its bases; `edgeseq up` stops both, says so with another, and starts them
when the first is gone.  Which base is right is read from the store, so that a kill anywhere in between
leaves nothing to guess: a publication that has begun is finished as a change of base, which goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from edgeseq_core.clock import SystemClock
from edgeseq_core.learn.change_base import change_base
from edgeseq_core.model.base_file import read_header

from .cli.store import Store

HELD_BACK = ("consumer", "learner")
GRANT_S = 60.0  # within which both must have stopped
_TICK_S = 0.05

log = structlog.get_logger(__name__)


class GaveWay(Exception):  # noqa: N818 - no error: something else comes first
    """Pairs wait, a task has learnt meanwhile, or the service is to stop."""


@dataclass(frozen=True)
class Publication:
    """From which base file (None: the shipped one) to which."""

    old: str | None
    new: str


class Handover:
    """The two files; the consolidator asks and is done, `edgeseq up` grants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._asked, self._granted = folder / "publishing.json", folder / "publishing.granted"

    def ask(self, old: Path | None, new: Path) -> Publication:
        """Let consumer and learner be stopped."""
        asked = Publication(None if old is None else str(old.absolute()), str(new.absolute()))
        scratch = self._asked.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(asked)))
        scratch.replace(self._asked)
        return asked

    @property
    def pending(self) -> Publication | None:
        """What was asked for and is not done."""
        try:
            return Publication(**json.loads(self._asked.read_text()))
        except FileNotFoundError:
            return None

    @property
    def granted(self) -> bool:
        """Whether consumer and learner are stopped."""
        return self._granted.exists()

    def grant(self) -> None:
        """They are."""
        self._granted.touch()

    def done(self) -> None:
        """They may start."""
        self._granted.unlink(missing_ok=True)
        self._asked.unlink(missing_ok=True)

    def held_back(self) -> Collection[str]:
        """The services that must not run now."""
        return HELD_BACK if self._asked.exists() else ()


def wait_for_grant(handover: Handover, look_up: Callable[[], None]) -> None:
    """Until consumer and learner are stopped; raises what ``look_up`` does, and GaveWay when they do not."""
    deadline = time.monotonic() + GRANT_S
    while not handover.granted:
        look_up()
        if time.monotonic() > deadline:
            raise GaveWay("consumer and learner did not stop")
        time.sleep(_TICK_S)


def finish(publication: Publication, store: Store) -> None:
    """End a publication that was cut off: go on with one that has begun, drop the file of one that has not.

    Consumer and learner must be stopped.  Tasks whose calibration was not put in place learn anew.
    """
    new_path = Path(publication.new)
    if not new_path.exists():
        return
    old = read_header(Path(publication.old) if publication.old else None)
    new = read_header(new_path)
    if new.digest not in bases(store):
        new_path.unlink()
        return
    for change in change_base(
        store.buffer,
        store.registry,
        old=old,
        new=new,
        partitions=store.partitions,
        clock=SystemClock(),
    ):
        log.warning("publication_finished", **asdict(change))


def bases(store: Store) -> set[str]:
    """Digests of the bases that tasks were changed to."""
    found = {
        store.registry.status(task).base
        for partition in range(store.partitions)
        for task in store.buffer.tasks(partition)
    }
    return {base for base in found if base is not None}


def present_base(configured: Path | None, folder: Path, store: Store) -> Path | None:
    """The base file that all tasks are on, if it was consolidated from the configured one; else that one."""
    digests, wanted = bases(store), read_header(configured).digest
    if len(digests) != 1 or digests == {wanted}:
        return configured
    made = {path: read_header(path) for path in folder.glob("*.safetensors")}
    parents = {header.digest: header.notes.get("consolidated_from") for header in made.values()}
    (digest,) = digests
    ancestor: str | None = digest
    while ancestor is not None and ancestor != wanted:
        ancestor = parents.get(ancestor)
    if ancestor is None:
        return configured
    return next(path for path, header in made.items() if header.digest == digest)
