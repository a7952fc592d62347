"""Which base the services of an `edgeseq up` run on: the configured one, or what was consolidated from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from edgeseq_core.errors import ConfigError, StoreError
from edgeseq_core.settings import BaseModelSettings, Settings

from .cli.store import open_store
from .handover import HELD_BACK, Handover, finish, present_base


class PresentBase:
    """The environment of services on the base that the store is on; holds them back while it changes."""

    def __init__(
        self, settings: Settings, folder: Path, *, on_event: Callable[[str], None]
    ) -> None:
        self._settings, self._handover, self._on_event = settings, Handover(folder), on_event
        self._path = settings.base.path
        self._held = self._settled = False
        self._environment = self._made()

    def environment(self) -> Mapping[str, str]:
        """Of every service; another mapping once the base has changed."""
        return self._environment

    def settle(self) -> None:
        """Before any service runs: end a publication that was cut off; look which base the store is on."""
        settled, self._settled = self._settled, True
        if settled or not self._handover.folder.exists():
            return
        if (pending := self._handover.pending) is not None:
            with open_store(self._settings) as store:
                finish(pending, store)
            self._handover.done()
        self._look()

    def held_back(self) -> Collection[str]:
        """Consumer and learner while a consolidator publishes, and until the base is known again."""
        names = self._handover.held_back()
        if self._held and not names:
            try:
                self._look()
            except StoreError:
                return HELD_BACK
        self._held = bool(names)
        return names

    def all_stopped(self) -> None:
        """The consolidator may publish."""
        self._handover.grant()

    def _look(self) -> None:
        try:
            with open_store(self._settings) as store:
                found = present_base(self._settings.base.path, self._handover.folder, store)
        except ConfigError:  # a store that holds nothing yet
            found = self._settings.base.path
        if found != self._path:
            self._on_event(
                f"the base is {found or 'the shipped one'}, as the tasks in the store are"
            )
        self._path, self._environment = found, self._made(found)

    def _made(self, path: Path | None = None) -> Mapping[str, str]:
        base = BaseModelSettings(path=path) if path else self._settings.base
        settings = self._settings.model_copy(update={"base": base})
        return {"OMP_NUM_THREADS": "1", **settings.as_environment()}
