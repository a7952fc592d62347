"""An operator's decision about a task's snapshots or a request, and its result."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from edgeseq_core.messages.fields import Identifier, Message, Note, TaskName, TimeMs
from edgeseq_core.messages.reply import SnapshotId

Action = Literal["promote", "pin", "unpin", "rollback", "cancel"]

#: action -> (fields it needs, fields it may have)
_FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "promote": (frozenset({"task", "snapshot_id"}), frozenset()),
    "pin": (frozenset({"task"}), frozenset()),
    "unpin": (frozenset({"task"}), frozenset()),
    "rollback": (frozenset({"task"}), frozenset({"snapshot_id"})),
    "cancel": (frozenset({"request_id"}), frozenset({"task"})),
}


class Control(Message):
    """A decision by a person; a rollback without ``snapshot_id`` goes to the champion's parent."""

    kind: Literal["control"] = "control"
    control_id: Identifier
    action: Action
    task: TaskName | None = None
    snapshot_id: SnapshotId | None = None
    request_id: Identifier | None = None
    operator: Identifier
    reason: Note = ""
    sent_at_ms: TimeMs

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        needed, allowed = _FIELDS[self.action]
        given = {n for n in ("task", "snapshot_id", "request_id") if getattr(self, n) is not None}
        if missing := sorted(needed - given):
            raise ValueError(f"{self.action} needs {', '.join(missing)}")
        if surplus := sorted(given - needed - allowed):
            raise ValueError(f"{self.action} takes no {', '.join(surplus)}")
        return self


class ControlResult(Message):
    """What came of a control message; ``champion`` is the snapshot that serves now."""

    kind: Literal["control_result"] = "control_result"
    control_id: Identifier
    action: Action
    ok: bool
    task: TaskName | None = None
    champion: SnapshotId | None = None
    error: Note = ""
