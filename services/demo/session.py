"""One run of the demo: start everything, tell the story, show it, keep serving, stop cleanly."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import stamina.instrumentation

from edgeseq_core.client import Client
from edgeseq_core.errors import ConfigError, ServiceError
from edgeseq_core.model.base_file import read_header
from edgeseq_core.settings import load_settings

from ..cli.output import emit, say
from ..up import Instance, stop_signals, up
from . import folder, view
from .asking import PRODUCER
from .board import Board
from .plan import Order, Preparation, require_packages
from .screen import Screen
from .story import Story, fill_in
from .summary import summary

RATE = 16.0  # pairs/s; two cores learn these and still answer
TICK_S = 0.25
SUMMARY = "summary.json"  # in the state folder


def run(
    *,
    directory: Path | None = None,
    kafka: str | None = None,
    redis: str | None = None,
    order: Order | None = None,
    rate: float = RATE,
    keep: bool = False,
    stop_when_done: bool = False,
    as_json: bool = False,
) -> int:
    """Teach, watch, and serve until Ctrl-C; returns 0, or 1 when a task changed without pairs.

    Raises ConfigError, MissingExtraError or ServiceError in one sentence; then nothing runs on.
    """
    if rate <= 0:
        raise ConfigError("--rate must be above 0 pairs/s; correct it")
    order = order or Order()
    require_packages()
    settings = load_settings()
    read_header(settings.base.path)  # one sentence now is better than services that cannot start
    stamina.instrumentation.set_on_retry_hooks([])  # retries are told by their outcome
    path = directory or folder.DEFAULT
    folder.begin(path, keep=keep)
    board = Board(order.phases())
    with ExitStack() as stack:
        stack.enter_context(stop_signals())
        stack.enter_context(_log_to(board))
        screen = stack.enter_context(Screen(board, as_json=as_json))
        try:
            board.doing = "starting broker, store, consumer, learner and predictor"
            screen.tick()
            if kafka is not None or redis is not None:
                board.notice("the given servers keep what they hold: it is not begun afresh")
            base = settings.base.path
            preparation = Preparation(order, base=str(base.absolute()) if base else None)
            stack.callback(preparation.close)
            instance = stack.enter_context(
                up(path, kafka=kafka, redis=redis, settings=settings, on_event=board.notice)
            )
            client = stack.enter_context(
                Client(settings=instance.settings.kafka, producer=PRODUCER)
            )
            story = Story(client, instance.settings, board, preparation, rate=rate)
            stack.callback(story.stop)
            board.ready_s, board.doing = board.elapsed_s, "making the pairs from data packages"
            story.start()
            _follow(board, story, instance, preparation, screen)
            screen.close()
            memory = instance.resident_bytes()
            result = summary(board, story.unchanged, instance.settings, memory, rate=rate)
            (path / SUMMARY).write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
            if as_json:
                emit(result)
            else:
                view.console().print(view.results(board, story.unchanged))
            changed = any(
                not one.later_pairs and not (one.same_bytes and one.same_answers)
                for one in story.unchanged
            )
            if not stop_when_done:
                if not as_json:
                    say("in a second terminal:")
                    for command, why in view.commands(_program(), str(path), board):
                        say((f"  {command}", "bold"), (f"  # {why}", "dim"))
                    say(
                        ("\nstill serving; Ctrl-C stops everything", "bold green"),
                        f"; logs: {path}/logs",
                    )
                instance.wait()
        except KeyboardInterrupt:
            screen.close()
            if not as_json:
                say(("stopping; accepted work is finished first", "dim"))
            return 0
    return int(changed)


class _Notices(logging.Handler):
    """Shows what the library logs where it does not tear the live screen."""

    def __init__(self, board: Board) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        self._board.notice(record.getMessage())


@contextmanager
def _log_to(board: Board) -> Iterator[None]:
    library, handler = logging.getLogger("edgeseq_core"), _Notices(board)
    library.addHandler(handler)
    library.propagate = False
    try:
        yield
    finally:
        library.propagate = True
        library.removeHandler(handler)


def _follow(
    board: Board, story: Story, instance: Instance, preparation: Preparation, screen: Screen
) -> None:
    """Show the story until it ends; raises what ended it early."""
    while not story.done.wait(TICK_S):
        if failed := instance.supervisor.failed():
            raise ServiceError(failed[0])
        with board.lock:
            for phase in board.phases:
                lesson = preparation.ready(phase.name)
                if phase.status == "preparing" and lesson is not None:
                    fill_in(phase, lesson)
        screen.tick()
    screen.tick()
    if story.error is not None:
        raise story.error


def _program() -> str:
    """How a person in this folder calls this installation's ``edgeseq``."""
    own = Path(sys.argv[0])
    found = shutil.which("edgeseq")
    if own.name != "edgeseq" or (found and Path(found).resolve() == own.resolve()):
        return "edgeseq"
    relative = os.path.relpath(own)
    return str(own) if relative.startswith("..") else relative
