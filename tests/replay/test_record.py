from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq_core.errors import StateVersionError, StoreError
from edgeseq_core.replay.record import (
    PairRecord,
    owner_of,
    pack,
    pack_quarantined,
    pair_name,
    unpack,
    unpack_quarantined,
)
from edgeseq_core.text.vocabulary import Vocabulary

DIGEST = b"8 bytes."
VOCABULARY = Vocabulary("abcdefghijklmnopqrstuvwxyz ")
NAMES = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)
IDS = st.lists(st.integers(0, 2**32 - 1), max_size=40).map(tuple)
RECORDS = st.builds(
    PairRecord,
    producer=NAMES,
    pair_id=NAMES,
    arrived_ms=st.integers(0, 2**63),
    topic=st.text(max_size=60),
    offset=st.integers(0, 2**63),
    correction=st.booleans(),
    source_ids=IDS,
    target_ids=IDS,
)


def a_record(source: str = "abc", target: str = "xyz") -> PairRecord:
    return PairRecord(
        producer="p1",
        pair_id="id1",
        arrived_ms=1,
        topic="edgeseq.pairs",
        offset=2,
        correction=False,
        source_ids=tuple(VOCABULARY.encode(source)),
        target_ids=tuple(VOCABULARY.encode(target)),
    )


@given(RECORDS)
def test_round_trip(record: PairRecord) -> None:
    data = pack(record, DIGEST)
    assert unpack(data, DIGEST) == record
    assert owner_of(data) == (record.producer, record.pair_id)


@given(st.text(max_size=1024))
def test_text_comes_back_byte_for_byte(text: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    data = pack(a_record(source=text), DIGEST)
    assert VOCABULARY.decode(unpack(data, DIGEST).source_ids) == text


def test_a_short_pair_takes_two_bytes_a_token_and_few_more() -> None:
    assert (
        len(pack(a_record("a" * 20, "b" * 20), DIGEST)) == 33 + len("p1id1edgeseq.pairs") + 2 * 40
    )


@given(RECORDS, st.data())
def test_a_cut_record_is_damaged(record: PairRecord, data: st.DataObject) -> None:
    whole = pack(record, DIGEST)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    with pytest.raises(StoreError, match=f"of {len(cut)} bytes is damaged"):
        unpack(cut, DIGEST)


def test_a_record_without_tokens_cut_in_its_names_is_damaged() -> None:
    whole = pack(a_record(source="", target=""), DIGEST)
    for length in range(1, len(whole)):
        with pytest.raises(StoreError, match="is damaged"):
            owner_of(whole[:length])


def test_another_digest_is_refused() -> None:
    data = pack(a_record(), DIGEST)
    with pytest.raises(StateVersionError, match=r"encoded for base 382062797465732e"):
        unpack(data, b"other---")
    assert owner_of(data) == ("p1", "id1")


@pytest.mark.parametrize("data", [b"", b"\x02" + pack(a_record(), DIGEST)[1:]])
def test_another_version_is_refused(data: bytes) -> None:
    with pytest.raises(StateVersionError, match="record version"):
        unpack(data, DIGEST)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit a record"):
        pack(a_record(source="a" * 70_000), DIGEST)
    with pytest.raises(ValueError, match="8 bytes, not 3"):
        pack(a_record(), b"abc")


def test_names_do_not_run_into_each_other() -> None:
    assert pair_name("a", "b", "c") != pair_name("a", "bc", "")
    assert len(pair_name("a", "b", "c")) == 16


@given(st.binary(max_size=50))
def test_a_quarantined_message_is_kept_as_it_came(message: bytes) -> None:
    held = pack_quarantined(("t", "p", "i"), "series", message)
    assert unpack_quarantined(held) == (("t", "p", "i"), "series", message)
