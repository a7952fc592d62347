"""The command tree, and what a command's end becomes: an exit code, an error sentence."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from edgeseq_core import __version__
from edgeseq_core.errors import EdgeSeqError

from . import (
    base,
    bench,
    config,
    learn,
    pairs,
    predict,
    pretrain,
    purge,
    run,
    size,
    snapshots,
    tasks,
)
from .options import OPERATE, RESEARCH, RUN, USE
from .output import report

INTERRUPTED = 130


def build() -> App:
    """All commands; nothing heavy is imported before one of them runs."""
    app = App(
        name="edgeseq",
        help="Teach a tiny sequence-to-sequence model while it serves.",
        version=__version__,
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
    )
    for group, commands in (
        (RUN, (run.up, run.demo, run.doctor, run.status)),
        (USE, (pairs.teach, predict.predict, pairs.correct, pairs.pair)),
        (
            OPERATE,
            (
                snapshots.snapshots,
                snapshots.promote,
                snapshots.pin,
                snapshots.unpin,
                snapshots.rollback,
                purge.purge,
                purge.receipts,
            ),
        ),
        (RESEARCH, (learn.learn, pretrain.pretrain, pretrain.prune, size.size, bench.report)),
    ):
        for command in commands:
            app.command(command, group=group)
    for commands_of in (tasks.app, pairs.dlq, base.app, config.app, bench.app):
        app.command(commands_of)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 (failure) or 2 (usage or configuration)."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in tokens
    kafka_log = logging.getLogger("kafka")  # says on stderr what our own errors say better
    kafka_log.addHandler(logging.NullHandler())
    kafka_log.propagate = False
    try:
        result = build()(
            tokens, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        return report(error, as_json=as_json, usage=True)
    except EdgeSeqError as error:
        return report(error, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, e.g. `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0
