"""Where the board goes while the demo runs: a live screen, log lines, or JSON lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from ..cli.output import emit, say
from . import view
from .board import Board

LINE_EVERY_S = 10.0
FRAMES_PER_S = 4


class Screen:
    """``with`` it; on a terminal it repaints itself, elsewhere `tick` prints when it is time."""

    def __init__(self, board: Board, *, as_json: bool) -> None:
        self._board, self._as_json = board, as_json
        self._live: Live | None = None
        self._next_s = 0.0
        self._doing = ""
        if as_json or not sys.stdout.isatty():
            board.on_notice = self._notice
        else:
            console = Console(highlight=False)
            self._live = Live(
                get_renderable=lambda: self._frame(console),
                console=console,
                refresh_per_second=FRAMES_PER_S,
            )

    def _frame(self, console: Console) -> RenderableType:
        return view.screen(self._board, width=console.width)

    def _notice(self, sentence: str) -> None:
        if self._as_json:
            emit({"event": "notice", "message": sentence})
        else:
            say((f"! {sentence}", "yellow"))

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def tick(self) -> None:
        """Print a line every ten seconds, and when something else is being done."""
        if self._live is not None:
            return
        board = self._board
        if time.monotonic() < self._next_s and board.doing == self._doing:
            return
        self._next_s, self._doing = time.monotonic() + LINE_EVERY_S, board.doing
        if self._as_json:
            emit({"event": "update", **board.as_dict()})
            return
        say(view.line(board))

    def close(self) -> None:
        """Leave the last frame standing; may be called twice."""
        if self._live is not None:
            self._live.stop()
