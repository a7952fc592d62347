"""Logs are JSON lines that carry ids and sizes, never text."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from edgeseq_core.telemetry import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("kafka").level
    out = io.StringIO()
    logs.configure("consumer", stream=out)
    yield out
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger("kafka").setLevel(before[2])
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_service_and_level(stream: io.StringIO) -> None:
    structlog.get_logger("x").warning("log reset", topic="edgeseq.pairs", partition=3)
    (line,) = lines(stream)
    assert line["event"] == "log reset"
    assert (line["service"], line["level"]) == ("consumer", "warning")
    assert (line["topic"], line["partition"]) == ("edgeseq.pairs", 3)
    assert str(line["timestamp"]).endswith("Z")


def test_text_of_a_pair_does_not_get_through(stream: io.StringIO) -> None:
    log = structlog.get_logger("x")
    log.error("bad", source="geheim", target="secreto", payload=b"secret", pair_id="p1")
    log.error("bad", detail="secret" * 100)
    text = stream.getvalue()
    assert "geheim" not in text
    assert "secreto" not in text
    assert "secret" * 60 not in text
    assert lines(stream)[0]["pair_id"] == "p1"
    assert lines(stream)[0]["source"] == "<6 characters>"


def test_libraries_and_exceptions_are_json_too(stream: io.StringIO) -> None:
    logging.getLogger("redis").warning("lost %s", "connection")
    try:
        raise ValueError("x")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    first, second = lines(stream)
    assert (first["event"], first["service"]) == ("lost connection", "consumer")
    assert "ValueError: x" in str(second["exception"])


def test_debug_is_silent_by_default(stream: io.StringIO) -> None:
    structlog.get_logger("x").debug("noise")
    logging.getLogger("kafka.net").info("noise")
    assert stream.getvalue() == ""
