"""What a command prints: text for people, or JSON; errors in one sentence on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeseq_core.errors import EdgeSeqError

WHOLE = ("snapshot", "champion", "task")  # columns that people copy from: never cut


def emit(data: object) -> None:
    """One JSON value on a line of its own, at once."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, separators=(", ", ": ")) + "\n")
    sys.stdout.flush()


def say(*parts: str | tuple[str, str]) -> None:
    """A line for people; a part is text, or (text, style).  Nothing in it is markup."""
    Console(highlight=False, soft_wrap=True).print(Text.assemble(*parts))


def warn(sentence: str) -> None:
    """A line for people on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(sentence, "yellow"))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """A table for people; every cell is plain text."""
    shown = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column, no_wrap=column in WHOLE, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(shown)


def report(error: BaseException, *, as_json: bool, usage: bool = False) -> int:
    """Print an error on stderr and return the exit code."""
    sentence = " ".join(str(error).split()) or type(error).__name__
    code = 2 if usage else error.exit_code if isinstance(error, EdgeSeqError) else 1
    if as_json:
        retryable = isinstance(error, EdgeSeqError) and error.retryable
        document = {"type": type(error).__name__, "message": sentence, "retryable": retryable}
        sys.stderr.write(json.dumps({"error": document}, ensure_ascii=False) + "\n")
    else:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("error: ", "bold red"), (sentence, "red")))
    return code


def when(wall_ms: int | None) -> str:
    """A time for people: local, to the second."""
    if wall_ms is None:
        return ""
    from datetime import datetime

    return datetime.fromtimestamp(wall_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
