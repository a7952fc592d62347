"""The codec: reasons, size caps, and that nothing of a pair leaks into an error."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeseq_core.errors import MessageError
from edgeseq_core.messages import KINDS, Control, Feedback, Message, Pair, decode, encode

from .examples import EXAMPLES, SENT_MS

SECRET = "geheim-Ω"


def pair_bytes(**changes: Any) -> bytes:
    fields = json.loads(encode(EXAMPLES["pair"])) | changes
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def refuse(data: bytes, *kinds: type[Message], **options: int) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode(data, *(kinds or (Pair,)), **options)
    return caught.value


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "undecodable", "0 bytes"),
        (b"\xff\xfe", "undecodable", "2 bytes"),
        (b"{", "undecodable", "no UTF-8 JSON"),
        (b"[1]", "undecodable", "no object"),
        (b'"\\ud800"', "undecodable", ""),
        (b"[" * 5000, "undecodable", ""),
        (pair_bytes(schema_version=2), "wrong_version", "schema_version is 2"),
        (pair_bytes(schema_version="1"), "wrong_version", "odd"),
        (pair_bytes(schema_version=...), "wrong_version", "missing"),
        (pair_bytes(kind=SECRET), "wrong_kind", "expected pair"),
        (pair_bytes(kind="request"), "wrong_kind", "kind is request; expected pair"),
        (pair_bytes(kind=...), "wrong_kind", "expected pair"),
        (pair_bytes(target=""), "invalid", "target: "),
        (pair_bytes(source=""), "invalid", "source: "),
        (pair_bytes(source="x" * 1025), "invalid", "1024"),
        (pair_bytes(source=3), "invalid", "source: "),
        (pair_bytes(task="Dates"), "invalid", "task: "),
        (pair_bytes(task="a\n"), "invalid", "task: "),
        (pair_bytes(pair_id=SECRET), "invalid", "pair_id: "),
        (pair_bytes(sent_at_ms=-1), "invalid", "sent_at_ms: "),
        (pair_bytes(sent_at_ms="1"), "invalid", "sent_at_ms: "),
        (pair_bytes(**{SECRET: 1}), "invalid", "message: extra_forbidden"),
        (pair_bytes(source={"times": [0.0], "values": [[float("nan")]]}), "invalid", "finite"),
        (pair_bytes(source={"times": [0, 1], "values": [[1]]}), "invalid", "2 times but 1 rows"),
        (pair_bytes(source={"times": [1, 1], "values": [[1], [2]]}), "invalid", "increase"),
        (pair_bytes(source={"times": [0, 1], "values": [[1], [1, 2]]}), "invalid", "same length"),
        (pair_bytes(source={"times": [], "values": []}), "invalid", "times"),
    ],
)
def test_names_the_reason(data: bytes, reason: str, detail: str) -> None:
    error = refuse(data)
    assert error.reason == reason
    assert detail in error.detail
    assert SECRET not in str(error)


def test_size_is_checked_before_parsing() -> None:
    error = refuse(b"{" * (1 << 20))
    assert (error.reason, error.detail) == ("too_large", "1048576 bytes, at most 65536 are read")
    assert refuse(pair_bytes(), max_bytes=20).reason == "too_large"


def test_one_of_several_kinds() -> None:
    data = encode(EXAMPLES["feedback"])
    assert decode(data, Pair, Feedback) == EXAMPLES["feedback"]
    assert refuse(encode(EXAMPLES["request"]), Pair, Feedback).detail == (
        "kind is request; expected pair or feedback"
    )


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    assert refuse(data, *KINDS.values()).reason in Message.reason_codes


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
_fields = st.sampled_from([*Pair.model_fields, "request_id", "values", "action"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(EXAMPLES)), st.dictionaries(_fields, _json, max_size=4))
def test_mutated_messages_decode_or_raise_message_error(name: str, changes: dict[str, Any]) -> None:
    message = EXAMPLES[name]
    data = json.dumps(json.loads(encode(message)) | changes).encode()
    try:
        decoded = decode(data, type(message))
    except MessageError:
        assert refuse(data, type(message)).reason in Message.reason_codes
    else:
        assert decode(encode(decoded), type(message)) == decoded


@given(st.text(min_size=12, max_size=40), st.sampled_from(["source", "target", "task", "pair_id"]))
def test_no_value_reaches_an_error(text: str, field: str) -> None:
    wrong: dict[str, Any] = {field: {text: text}, "producer": text + "/", "kind": "pair"}
    error = refuse(pair_bytes(**wrong))
    assert text not in str(error)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_round_trip(name: str) -> None:
    assert decode(encode(EXAMPLES[name])) == EXAMPLES[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": "promote", "task": "dates"}, "promote needs snapshot_id"),
        ({"action": "cancel", "task": "dates"}, "cancel needs request_id"),
        ({"action": "pin", "task": "dates", "request_id": "r"}, "pin takes no request_id"),
        ({"action": "rollback"}, "rollback needs task"),
        ({"action": "explode", "task": "dates"}, "Input should be"),
    ],
)
def test_control_knows_what_each_action_needs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Control(control_id="c", operator="ann", sent_at_ms=SENT_MS, **changes)
