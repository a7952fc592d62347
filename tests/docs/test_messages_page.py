"""docs/messages.md says what the code does: kinds, fields, topics, headers, codes, reasons."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from edgeseq_core import keys
from edgeseq_core.messages import KINDS, ErrorCode, OutcomeState, Reason, decode
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.topics import topic_specs
from tests.docs.pages import ROOT, blocks, first_column, section

PAGE = ROOT / "docs/messages.md"
_RAISED = re.compile(r"(?:MessageError|_dead_letter)\(\s*(?:record,\s*)?\"(\w+)\"")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_all_its_fields_and_an_example(kind: str) -> None:
    text = section(PAGE, kind)
    assert first_column(text) == list(KINDS[kind].model_fields)
    (example,) = [block for block in blocks(PAGE, "json") if f'"kind": "{kind}"' in block]
    assert example in text
    assert isinstance(decode(example.encode()), KINDS[kind])


def test_no_kind_is_told_that_is_none() -> None:
    assert set(re.findall(r"^### (\w+)$", PAGE.read_text(), re.M)) == set(KINDS)


def test_topics_and_their_partitions() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \| (\d+) \|", section(PAGE, "Topics"), re.M)
    kafka = KafkaSettings()
    specs = topic_specs(keys.Topics(kafka.topic_prefix), kafka.partitions)
    assert [(name, int(count)) for name, count in rows] == [(s.name, s.partitions) for s in specs]


def test_headers() -> None:
    told = set(first_column(section(PAGE, "Headers")))
    assert told == {value for name, value in vars(keys).items() if name.startswith("HEADER_")}


def test_error_codes() -> None:
    assert first_column(section(PAGE, "Error codes of replies")) == list(get_args(ErrorCode))


def test_states_of_a_pair() -> None:
    (row,) = re.findall(r"^\| `state` \| (.*) \|$", PAGE.read_text(), re.M)
    assert re.findall(r"`(\w+)`", row) == list(get_args(OutcomeState))


def test_reasons_of_dead_letters() -> None:
    told = set(first_column(section(PAGE, "Reasons of dead letters")))
    raised = {
        reason
        for folder in ("messages", "streams", "serving")
        for file in (ROOT / "edgeseq_core" / folder).glob("*.py")
        for reason in _RAISED.findall(file.read_text())
    }
    assert raised >= {"invalid", "wrong_partition", "reply_topic"}
    assert told >= set(get_args(Reason)) | raised
    code = "".join(f.read_text() for f in (ROOT / "edgeseq_core").rglob("*.py"))
    assert all(f'"{reason}"' in code for reason in told)
