"""Control messages: an operator's decision reaches the registry, and the answer its sender.

The consumer applies them because it owns the task's partition, so that a roll-back works while the
learner is dead.  A control id that is in the task's journal was applied before: it is answered, not
applied again.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable

import structlog

from edgeseq_core import keys
from edgeseq_core.clock import Clock
from edgeseq_core.errors import FencedError, SnapshotError
from edgeseq_core.messages import Control, ControlResult, encode
from edgeseq_core.replay.buffer import ReplayBuffer
from edgeseq_core.snapshots.registry import SnapshotRegistry
from edgeseq_core.streams.dead_letters import Record, header
from edgeseq_core.streams.producer import OutRecord, RecordProducer

REMEMBERED_IDS = 1_000
REMEMBERED_LINES = 50_000  # of a journal: hours of it, about 10 MB, so that a rollback stays quick
MAX_ERROR_CHARACTERS = 400
log = structlog.get_logger(__name__)


class ReplyAddress:
    """Where a sender wants its answer: headers that name an allow-listed topic and a partition.

    Allowed are the reply topic and topics named after it: "<reply topic>.<anything>".
    """

    def __init__(self, topics: keys.Topics, partition_count: Callable[[str], int]) -> None:
        self._replies = topics.replies
        self._partition_count = partition_count

    def of(self, record: Record) -> tuple[str, int] | None:
        """Topic and partition; None when none is asked for, ValueError when it is not allowed."""
        topic = header(record, keys.HEADER_REPLY_TOPIC)
        if not topic:
            return None
        if topic != self._replies and not topic.startswith(f"{self._replies}."):
            raise ValueError(f"replies go to {self._replies} or topics named after it")
        digits = header(record, keys.HEADER_REPLY_PARTITION)
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
            raise ValueError("the reply partition is no number")
        if int(digits) >= self._partition_count(topic):
            raise ValueError("there is no such reply partition")
        return topic, int(digits)


class ControlDesk:
    """Applies control messages and answers them."""

    def __init__(
        self,
        registry: SnapshotRegistry,
        store: ReplayBuffer,
        producer: RecordProducer,
        *,
        address: ReplyAddress,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._store = store
        self._producer = producer
        self._address = address
        self._clock = clock
        self._results: OrderedDict[str, ControlResult] = OrderedDict()

    def handle(self, record: Record, control: Control) -> list[str]:
        """Apply and answer one message; returns outcomes to count.

        Errors of store and broker come out: the caller then tries the message again.
        """
        if control.action == "cancel":
            return ["passed"]  # every predictor reads these itself
        result = self._results.get(control.control_id) or self._apply(control)
        self._results[control.control_id] = result
        while len(self._results) > REMEMBERED_IDS:
            self._results.popitem(last=False)
        outcomes = ["applied" if result.ok else "refused"]
        try:
            address = self._address.of(record)
        except ValueError as error:
            log.warning("reply_topic_refused", control_id=control.control_id, reason=str(error))
            return [*outcomes, "reply_refused"]
        if address is not None:
            topic, partition = address
            headers = [(keys.HEADER_ID, control.control_id.encode())]
            self._producer.send_all(
                [OutRecord(topic=topic, partition=partition, value=encode(result), headers=headers)]
            )
        return outcomes

    def _apply(self, control: Control) -> ControlResult:
        task = control.task or ""
        status = self._registry.status(task)
        error = ""
        if not self._was_applied(task, control.control_id):
            try:
                self._move(control, task, status.champion)
            except (SnapshotError, FencedError, ValueError) as refused:
                error = str(refused)[:MAX_ERROR_CHARACTERS]
        champion = self._registry.status(task).champion
        log.info(
            "control",
            control_id=control.control_id,
            action=control.action,
            task=task,
            operator=control.operator,
            champion=champion,
            error=error,
        )
        return ControlResult(
            control_id=control.control_id,
            action=control.action,
            ok=not error,
            task=control.task,
            champion=champion,
            error=error,
        )

    def _move(self, control: Control, task: str, champion: str | None) -> None:
        now_ms = self._clock.wall_ms()
        if control.action in ("pin", "unpin"):
            pinned = control.action == "pin"
            line = self._line(control, champion, now_ms)
            self._registry.pin(task, pinned, now_ms=now_ms, journal=line)
            return
        target = control.snapshot_id or self._parent(task, champion)
        line = self._line(control, target, now_ms)
        move = self._registry.promote if control.action == "promote" else self._registry.rollback
        move(task, target, expected_champion=champion, now_ms=now_ms, journal=line)

    def _parent(self, task: str, champion: str | None) -> str:
        """The snapshot that served before the champion."""
        parent = self._registry.record(task, champion).manifest.parent if champion else None
        if parent is None:
            raise SnapshotError(f"task {task} has no earlier champion to roll back to")
        return parent

    def _line(self, control: Control, snapshot_id: str | None, now_ms: int) -> str:
        return json.dumps(
            {
                "kind": "pin" if control.action == "unpin" else control.action,
                "action": control.action,
                "control_id": control.control_id,
                "operator": control.operator,
                "reason": control.reason,
                "snapshot_id": snapshot_id,
                "at_ms": now_ms,
            }
        )

    def _was_applied(self, task: str, control_id: str) -> bool:
        """Whether the journal's end holds this id; ids need no escapes, so a substring test will do."""
        mark = json.dumps({"control_id": control_id})[1:-1]
        return any(mark in line for line in self._store.journal(task, after=-REMEMBERED_LINES))
