"""Files that commands read and write, with errors that say which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgeseq_core.errors import ConfigError


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """A file to read lines of bytes from; ``-`` is standard input.  Raises ConfigError."""
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = file.open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}; correct the path") from None
    with lines:
        yield lines


def require_writable(file: Path) -> None:
    """Raise ConfigError unless ``file`` can be written; asked before long work, not after it."""
    try:
        existed = file.exists()
        file.open("ab").close()
        if not existed:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}; choose another --out") from None


def count_lines(file: Path) -> int | None:
    """How many lines a file has; None for standard input."""
    if str(file) == "-":
        return None
    with opened(file) as lines:
        return sum(1 for _ in lines)
