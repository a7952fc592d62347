"""Where a stream bench lives on disk: streams as they were learnt, and one file a finished cell.

A cell that is there is never run again; one that other data, settings or another base made is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from edgeseq_core.corpus.drift_streams import DRIFTS
from edgeseq_core.corpus.stream_tasks import task_stream
from edgeseq_core.corpus.streams import Size, Stream
from edgeseq_core.errors import ConfigError
from edgeseq_core.evaluate.learning_bench import CELL, STREAM, Cell
from edgeseq_core.evaluate.methods.registry import METHODS

TASK_STREAM = "tasks"
STREAMS = (TASK_STREAM, *DRIFTS)
_SIZE = TypeAdapter(Size)


class CellKey(NamedTuple):
    """Which cell."""

    stream: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.stream}, {self.method}, seed {self.seed}"


class BenchFolder:
    """Streams and cells below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stream(self, name: str, size: Size, data: Path, tasks: int) -> Stream:
        """The stream as this bench learns it: from its file, else made and kept.

        Raises MissingDataError and MissingExtraError when its data is not there, ConfigError when the
        file is of another size.
        """
        file = self._stream_file(name, size.seed)
        made_of = file.with_suffix(".size.json")
        wanted = _SIZE.dump_json(size) + str(tasks).encode()
        if file.exists():
            if made_of.read_bytes() != wanted:
                raise ConfigError(f"{file} was made with other sizes: name another --out")
            return STREAM.validate_json(file.read_bytes())
        stream = (
            task_stream(data, size, tasks=tasks)
            if name == TASK_STREAM
            else DRIFTS[name](data, size)
        )
        _write(made_of, wanted)
        _write(file, STREAM.dump_json(stream))
        return stream

    def kept_stream(self, name: str, seed: int) -> Stream:
        """A stream that was made before."""
        return STREAM.validate_json(self._stream_file(name, seed).read_bytes())

    def cell(self, key: CellKey, identity: str) -> Cell | None:
        """A finished cell; raises ConfigError when something else made it than ``identity`` says."""
        file = self._cell_file(key)
        if not file.exists():
            return None
        cell = _read(file)
        if cell.identity != identity:
            raise ConfigError(
                f"{file} was made with another base, other settings or other data: name another --out"
            )
        return cell

    def keep(self, key: CellKey, cell: Cell) -> None:
        """Write a finished cell, whole or not at all."""
        _write(self._cell_file(key), CELL.dump_json(cell))

    def cells(self) -> list[Cell]:
        """All finished cells, as streams and methods are listed; raises ConfigError when there is none."""
        found = [_read(file) for file in (self.folder / "cells").glob("*/*.json")]
        if not found:
            raise ConfigError(f"{self.folder} holds no finished cell of `edgeseq bench learning`")
        places = {name: at for at, name in enumerate([*STREAMS, *METHODS])}
        return sorted(found, key=lambda c: (places[c.stream], places[c.method], c.seed))

    def _stream_file(self, name: str, seed: int) -> Path:
        return self.folder / "streams" / f"{name}-{seed}.json"

    def _cell_file(self, key: CellKey) -> Path:
        return self.folder / "cells" / key.stream / f"{key.method}-{key.seed}.json"


def _read(file: Path) -> Cell:
    try:
        return CELL.validate_json(file.read_bytes())
    except ValidationError as error:
        raise ConfigError(
            f"{file} is no cell of this version (faults: {error.error_count()}): remove it"
        ) from None


def _write(file: Path, data: bytes) -> None:
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, file)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}; name another --out") from None
