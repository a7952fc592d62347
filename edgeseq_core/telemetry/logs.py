"""JSON logs on stderr: ids and sizes, never the text of a pair.

``configure`` is for processes; the library only calls ``structlog.get_logger``.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

TEXT_FIELDS = frozenset({"source", "target", "text", "value", "payload", "hypothesis"})
MAX_FIELD_CHARACTERS = 300
Level = Literal["debug", "info", "warning", "error"]


def keep_text_out(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace what may be text of a pair by its size.

    >>> keep_text_out(None, "info", {"event": "bad pair", "source": "my secret"})
    {'event': 'bad pair', 'source': '<9 characters>'}
    """
    for name, value in event.items():
        if isinstance(value, str | bytes):
            unit = "characters" if isinstance(value, str) else "bytes"
            if name in TEXT_FIELDS or isinstance(value, bytes):
                event[name] = f"<{len(value)} {unit}>"
            elif len(value) > MAX_FIELD_CHARACTERS and name != "exception":
                event[name] = value[:MAX_FIELD_CHARACTERS] + f"… <{len(value)} {unit}>"
    return event


def configure(
    service: str,
    *,
    level: Level = "info",
    form: Literal["json", "text"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Send this process's logs, those of libraries included, to ``stream`` (stderr)."""

    def name_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    shared: list[Processor] = [
        name_service,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        keep_text_out,
    ]
    final: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=False)]
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("kafka").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
