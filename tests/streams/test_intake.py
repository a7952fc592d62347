"""What a record becomes: a pair in the store's form, or a letter with its reason."""

from __future__ import annotations

import string
from dataclasses import dataclass, field

import pytest

from edgeseq_core.keys import partition_of
from edgeseq_core.messages import Feedback, Pair, encode
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.replay.recall import pack as pack_told
from edgeseq_core.replay.record import unpack
from edgeseq_core.streams.intake import Intake, IntakeLimits, names_of
from edgeseq_core.testing.clock import FakeClock
from edgeseq_core.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(string.printable)
DIGEST = b"12345678"
NOW_MS = FakeClock().wall_ms()
PARTITION = partition_of("dates", 8)


@dataclass
class FakeRecord:
    value: bytes | None
    key: bytes | None = b"dates"
    partition: int = PARTITION
    offset: int = 7
    topic: str = "e.pairs"
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def pair(**changes: object) -> Pair:
    fields = {
        "pair_id": "p1",
        "producer": "erp",
        "task": "dates",
        "source": "Grüße \U0001f600",
        "target": "ok",
        "sent_at_ms": NOW_MS,
    }
    return Pair.model_validate(fields | changes)


def intake() -> Intake:
    return Intake(VOCABULARY, DIGEST, partitions=8, limits=IntakeLimits(), clock=FakeClock())


def test_a_pair_is_stored_as_tokens_that_give_its_text_back() -> None:
    taken = intake().take([FakeRecord(encode(pair()))], Pair)
    (stored,) = taken.pairs
    record = unpack(stored.record, DIGEST)
    assert VOCABULARY.decode(record.source_ids) == "Grüße \U0001f600"
    assert VOCABULARY.decode(record.target_ids) == "ok"
    assert (stored.task, stored.offset, stored.arrived_ms) == ("dates", 7, NOW_MS)
    assert not stored.correction
    assert stored.told == b""


def test_feedback_is_a_correction() -> None:
    fields = pair().model_dump() | {"kind": "feedback", "request_id": "r1"}
    taken = intake().take([FakeRecord(encode(Feedback(**fields)))], Feedback)
    (stored,) = taken.pairs
    assert stored.correction
    told = Remembered("ok", "erp", "p1")
    assert stored.told == pack_told("Grüße \U0001f600", told)


def test_a_correction_of_a_series_is_for_no_memory() -> None:
    series = {"times": [0.0], "values": [[1.0]]}
    fields = pair(source=series).model_dump() | {"kind": "feedback", "request_id": None}
    (stored,) = intake().take([FakeRecord(encode(Feedback(**fields)))], Feedback).pairs
    assert (stored.quarantine, stored.told) == ("unsupported_source", b"")


def test_the_longest_pair_fits() -> None:
    longest = pair(source="\U0001f600" * 1024, target="\U0001f600" * 1024)
    wide = IntakeLimits(max_tokens=5_000)
    patient = Intake(VOCABULARY, DIGEST, partitions=8, limits=wide, clock=FakeClock())
    (stored,) = patient.take([FakeRecord(encode(longest))], Pair).pairs
    assert len(unpack(stored.record, DIGEST).source_ids) == 4096


def test_the_clock_may_be_a_little_ahead() -> None:
    ahead = [pair(sent_at_ms=NOW_MS + ms) for ms in (300_000, 300_001)]
    taken = intake().take([FakeRecord(encode(p)) for p in ahead], Pair)
    assert len(taken.pairs) == 1
    assert [letter.reason for letter in taken.letters] == ["clock"]


def test_a_pair_in_another_partition_is_named() -> None:
    wrong = [
        FakeRecord(encode(pair()), partition=(PARTITION + 1) % 8),
        FakeRecord(encode(pair()), key=None),
        FakeRecord(encode(pair()), key=b"verbs"),
    ]
    letters = intake().take(wrong, Pair).letters
    assert [letter.reason for letter in letters] == ["wrong_partition"] * 3
    assert "partition 7 of 8" in letters[0].detail


def test_names_come_from_the_message_or_the_headers() -> None:
    assert names_of(FakeRecord(encode(pair()))) == ("dates", "erp", "p1")
    headers = [("edgeseq-producer", b"erp"), ("edgeseq-id", b"p9")]
    assert names_of(FakeRecord(b"junk", headers=headers)) == ("dates", "erp", "p9")
    assert names_of(FakeRecord(b"junk")) is None
    assert names_of(FakeRecord(b"junk", key=b"\xff", headers=headers)) is None
    assert names_of(FakeRecord(None, key=None)) is None


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_pair_longer_than_the_base_reads_is_a_letter_that_shows_no_text(side: str) -> None:
    limits = IntakeLimits(max_tokens=8)
    short = Intake(VOCABULARY, DIGEST, partitions=8, limits=limits, clock=FakeClock())
    longest, longer = pair(**{"source": "s", side: "a" * 7}), pair(**{"source": "s", side: "a" * 8})
    taken = short.take([FakeRecord(encode(longest)), FakeRecord(encode(longer))], Pair)
    assert len(taken.pairs) == 1
    assert taken.letters[0].reason == "too_long"
    assert "aa" not in taken.letters[0].detail
