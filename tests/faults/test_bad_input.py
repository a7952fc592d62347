"""Bad pairs and bad feedback between good ones: each is named and kept, and nothing else suffers.

What real brokers do with them is tested in ``tests/integration/test_consumer.py`` (pairs, redrive) and
``test_predictor.py`` (requests, reply topics); here every kind goes through both topics, with the history
checker over what a learner makes of the rest.
"""

from __future__ import annotations

import json
import time

import pytest

from edgeseq_core.messages import Feedback, Pair, Series, encode
from tests.faults.bench import Bench
from tests.faults.history import violations

DAY_MS = 86_400_000


def bad_messages(*, correction: bool) -> dict[str, tuple[bytes, str]]:
    """By pair id: the bytes and the reason they are dead-lettered for."""
    sent_ms = time.time_ns() // 1_000_000

    def good(pair_id: str, **changes: object) -> dict[str, object]:
        fields = {
            "pair_id": pair_id,
            "producer": "erp",
            "task": "dates",
            "source": "a",
            "target": "b",
            "sent_at_ms": sent_ms,
        }
        message = Feedback(**fields) if correction else Pair(**fields)  # type: ignore[arg-type]
        return json.loads(encode(message)) | changes

    def text(pair_id: str, **changes: object) -> bytes:
        return json.dumps(good(pair_id, **changes)).encode()

    nan = {"times": [0.0], "values": [[float("nan")]]}
    return {
        "bytes": (b"\xff\xfe\x00", "undecodable"),
        "version": (text("version", schema_version=2), "wrong_version"),
        "kind": (text("kind", kind="request"), "wrong_kind"),
        "megabyte": (text("megabyte", source="x" * 1_000_000), "too_large"),
        "long": (text("long", source="x" * 1_025), "invalid"),
        "target": (text("target", target=""), "invalid"),
        "nan": (text("nan", source=nan), "invalid"),
        "extra": (text("extra", surprise=1), "invalid"),
        "clock": (text("clock", sent_at_ms=sent_ms + DAY_MS), "clock"),
    }


@pytest.mark.parametrize("correction", [False, True], ids=["pairs", "feedback"])
def test_bad_input_is_kept_with_its_reason_and_stops_nothing(
    bench: Bench, correction: bool
) -> None:
    bad = bad_messages(correction=correction)
    for n, (pair_id, (value, _)) in enumerate(bad.items()):
        bench.send("dates", f"good-{n}", correction=correction)
        bench.send_raw("dates", pair_id, value, correction=correction)
    bench.send("dates", "last", correction=correction)
    bench.consume(batch=4)
    bench.learn()

    assert bench.letters.reasons == [reason for _, reason in bad.values()]
    assert bench.letters.values == [value for value, _ in bad.values()]
    for pair_id in bad:
        outcome = bench.buffer.outcome("dates", "erp", pair_id)
        assert outcome is not None
        assert outcome.state == "dead_lettered"
    facts = bench.facts()
    assert violations(facts) == []
    good = {"trained"} if correction else {"trained", "held_out"}
    states = {o.state for (_, _, i), o in facts.outcomes.items() if o and i not in bad}
    assert states <= good


def test_a_series_waits_in_quarantine_as_it_came(bench: Bench) -> None:
    bench.send("dates", "first")
    bench.send("dates", "series", source=Series(times=[0.0, 1.0], values=[[1.0], [2.0]]))
    bench.send("dates", "last", correction=True)
    bench.consume()
    bench.learn()
    outcome = bench.buffer.outcome("dates", "erp", "series")
    assert outcome is not None
    assert (outcome.state, outcome.detail) == ("quarantined", "unsupported_source")
    assert violations(bench.facts()) == []
