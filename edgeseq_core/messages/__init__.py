"""Messages on the wire: pydantic models, one JSON codec, schema versions."""

from edgeseq_core.messages.codec import KINDS, MAX_MESSAGE_BYTES, decode, encode
from edgeseq_core.messages.control import Action, Control, ControlResult
from edgeseq_core.messages.dead_letter import DeadLetter, Reason
from edgeseq_core.messages.feedback import Feedback
from edgeseq_core.messages.fields import (
    MAX_TEXT_CHARACTERS,
    SCHEMA_VERSION,
    Message,
    Series,
    Source,
)
from edgeseq_core.messages.pair import Pair
from edgeseq_core.messages.reply import (
    ErrorCode,
    Hypothesis,
    PairName,
    Reply,
    ReplyError,
    Timings,
)
from edgeseq_core.messages.request import Priority, Request
from edgeseq_core.messages.status import OutcomeState, PairStatus, StatusQuery

__all__ = [
    "KINDS",
    "MAX_MESSAGE_BYTES",
    "MAX_TEXT_CHARACTERS",
    "SCHEMA_VERSION",
    "Action",
    "Control",
    "ControlResult",
    "DeadLetter",
    "ErrorCode",
    "Feedback",
    "Hypothesis",
    "Message",
    "OutcomeState",
    "Pair",
    "PairName",
    "PairStatus",
    "Priority",
    "Reason",
    "Reply",
    "ReplyError",
    "Request",
    "Series",
    "Source",
    "StatusQuery",
    "Timings",
    "decode",
    "encode",
]
