"""Messages to bytes and back; nothing but MessageError comes out of bytes that are no message.

A record of the expected kind is validated straight from its JSON.  Only when that fails is it
parsed again to name the reason.  No detail ever quotes a value: it names fields, types and sizes.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, overload

from pydantic import ValidationError
from pydantic_core import from_json

from edgeseq_core.errors import MessageError
from edgeseq_core.messages.control import Control, ControlResult
from edgeseq_core.messages.feedback import Feedback
from edgeseq_core.messages.fields import SCHEMA_VERSION, Message, Series, Strict
from edgeseq_core.messages.pair import Pair
from edgeseq_core.messages.reply import Hypothesis, PairName, Reply, ReplyError, Timings
from edgeseq_core.messages.request import Request
from edgeseq_core.messages.status import PairStatus, StatusQuery

MAX_MESSAGE_BYTES = 65_536
MAX_ERRORS_NAMED = 4

_MODELS: tuple[type[Message], ...] = (
    Pair,
    Feedback,
    Request,
    StatusQuery,
    Control,
    Reply,
    PairStatus,
    ControlResult,
)


def _kind_of(model: type[Message]) -> str:
    return str(model.model_fields["kind"].default)


KINDS: dict[str, type[Message]] = {_kind_of(model): model for model in _MODELS}
_EXPLICIT = frozenset({"kind", "schema_version"})  # never left to a default on the wire
_PARTS: tuple[type[Strict], ...] = (Series, Hypothesis, PairName, ReplyError, Timings)
_FIELD_NAMES = frozenset(name for model in (*_MODELS, *_PARTS) for name in model.model_fields)
_QUOTING_ERRORS = frozenset({"union_tag_invalid", "extra_forbidden"})

M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)


def encode(message: Message) -> bytes:
    """The message as UTF-8 JSON."""
    return message.__pydantic_serializer__.to_json(message)


@overload
def decode(data: bytes, kind: type[M], /, *, max_bytes: int = ...) -> M: ...
@overload
def decode(data: bytes, kind: type[M], other: type[N], /, *, max_bytes: int = ...) -> M | N: ...
@overload
def decode(data: bytes, /, *kinds: type[Message], max_bytes: int = ...) -> Message: ...


def decode(data: bytes, /, *kinds: type[Message], max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """The message in ``data``, which must be of one of ``kinds``; raises MessageError.

    Its ``reason`` is one of ``Message.reason_codes``; more than ``max_bytes`` are refused unparsed.
    """
    if len(data) > max_bytes:
        raise MessageError("too_large", f"{len(data)} bytes, at most {max_bytes} are read")
    if len(kinds) == 1:
        try:
            message = kinds[0].__pydantic_validator__.validate_json(data)
            if message.__pydantic_fields_set__ >= _EXPLICIT:
                return message  # type: ignore[no-any-return]
        except ValidationError:
            pass  # named below
    fields = _parse(data)
    model = _model(fields, kinds)
    try:
        return model.__pydantic_validator__.validate_json(data)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise MessageError("invalid", _describe(error)) from None


def _parse(data: bytes) -> dict[str, Any]:
    try:
        fields = from_json(data)
    except ValueError:
        raise MessageError("undecodable", f"{len(data)} bytes that are no UTF-8 JSON") from None
    if not isinstance(fields, dict):
        raise MessageError("undecodable", f"JSON of {len(data)} bytes that is no object")
    return fields


def _model(fields: dict[str, Any], kinds: tuple[type[Message], ...]) -> type[Message]:
    version = fields.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        shown = version if type(version) is int and abs(version) < 10**6 else "missing or odd"
        raise MessageError(
            "wrong_version", f"schema_version is {shown}; this reader knows {SCHEMA_VERSION}"
        )
    by_kind = _by_kind(kinds)
    kind = fields.get("kind")
    model = by_kind.get(kind) if isinstance(kind, str) else None
    if model is None:
        found = kind if isinstance(kind, str) and kind in KINDS else "none that is known"
        raise MessageError("wrong_kind", f"kind is {found}; expected {' or '.join(by_kind)}")
    return model


@cache
def _by_kind(kinds: tuple[type[Message], ...]) -> dict[str, type[Message]]:
    return {_kind_of(model): model for model in kinds or _MODELS}


def _describe(error: ValidationError) -> str:
    """Field names and what is wrong with each; never a value, never an unknown field's name."""
    parts = []
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    for item in errors[:MAX_ERRORS_NAMED]:
        where = ".".join(
            str(part) for part in item["loc"] if isinstance(part, int) or part in _FIELD_NAMES
        )
        what = item["type"] if item["type"] in _QUOTING_ERRORS else item["msg"]
        parts.append(f"{where or 'message'}: {what.removeprefix('Value error, ')}")
    if len(errors) > MAX_ERRORS_NAMED:
        parts.append(f"and {len(errors) - MAX_ERRORS_NAMED} more")
    return "; ".join(parts)
