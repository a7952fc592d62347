"""What a command prints: text for people, or JSON; errors in one sentence on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from edgeseq_core.errors import EdgeSeqError


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
    """Aligned columns for people; no cell is ever cut, so the widest should come last."""
    if title:
        say((title, "italic"))
    cells = [tuple(columns), *rows]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(columns))]
    widths[-1] = 0
    for style, row in zip(["bold", *[""] * len(cells)], cells, strict=False):
        line = "  ".join(
            set_cell_size(c, max(w, cell_len(c))) for c, w in zip(row, widths, strict=True)
        )
        say((line.rstrip(), style))


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
    """A time for people: local, to the second, without the year."""
    if wall_ms is None:
        return ""
    from datetime import datetime

    return datetime.fromtimestamp(wall_ms / 1000).strftime("%m-%d %H:%M:%S")


def percent(of_base: float | None) -> str:
    """A calibration's size for people; snapshots of before do not tell it."""
    return "" if of_base is None else f"{of_base:.1f} %"
