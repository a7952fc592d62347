"""Messages a client sends, checked before they leave it; no error quotes a text."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from edgeseq_core.errors import MessageError, RequestError
from edgeseq_core.messages import MAX_MESSAGE_BYTES, Message, encode

M = TypeVar("M", bound=Message)


def compose(model: type[M], **fields: Any) -> tuple[M, bytes]:
    """A message and its bytes; raises MessageError ("invalid" or "too_large")."""
    try:
        message = model(**fields)
    except ValidationError as error:
        raise MessageError("invalid", _describe(error)) from None
    data = encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError("too_large", f"{len(data)} bytes, at most {MAX_MESSAGE_BYTES} are read")
    return message, data


def request_error(error: MessageError, source: object) -> RequestError:
    """The error the predictor would have replied with, had the request been sent."""
    long = error.reason == "too_large" or (
        isinstance(source, str) and "at most" in error.detail and "source" in error.detail
    )
    return RequestError("too_long" if long else "invalid", error.detail)


def _describe(error: ValidationError) -> str:
    """The first fault: the field and what is wrong with it, never the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "message"
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"
