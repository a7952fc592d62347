"""A batch's way into the store: letters, controls, pairs and position, each step repeatable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from kafka import TopicPartition

from edgeseq_core.clock import Clock
from edgeseq_core.errors import StoreUnavailableError
from edgeseq_core.replay.buffer import IncomingPair, IngestOutcome, Position, ReplayBuffer
from edgeseq_core.streams.budget import FreshBudget
from edgeseq_core.streams.controls import ControlDesk
from edgeseq_core.streams.dead_letters import DeadLetterProducer, Letter, Record
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.intake import Taken, names_of
from edgeseq_core.streams.ownership import Owned

REFUSALS: dict[IngestOutcome, str] = {
    "unknown_task": "new tasks do not register themselves here, or there are too many",
    "quarantine_full": "the quarantine of its partition is full",
}
log = structlog.get_logger(__name__)


@dataclass
class Batch:
    """Records of one topic and partition on their way into the store."""

    tp: TopicPartition
    records: Sequence[Record]
    taken: Taken
    posted: int = 0  # letters that are safe on the dead-letter topic
    noted: int = 0  # letters whose pairs the store remembers
    unsure: bool = False  # the store's answer was lost: it may hold the batch already

    @property
    def next_offset(self) -> int:
        """Where to read on."""
        return self.records[-1].offset + 1


class Placer:
    """Stores batches; raises StoreError or BrokerError with nothing lost: call again."""

    def __init__(
        self,
        store: ReplayBuffer,
        *,
        desk: ControlDesk,
        dead_letters: DeadLetterProducer,
        budget: FreshBudget,
        clock: Clock,
        events: ConsumerEvents,
    ) -> None:
        self._store = store
        self._desk = desk
        self._dead_letters = dead_letters
        self._budget = budget
        self._clock = clock
        self._events = events

    def place(self, batch: Batch, owned: Owned) -> None:
        """Everything in the batch, then its position."""
        if batch.unsure and self._is_placed(batch, owned):
            return
        taken = batch.taken
        self._post(batch)
        while taken.controls:
            record, control = taken.controls[0]
            for outcome in self._desk.handle(record, control):
                self._events.control(control.action, outcome)
            del taken.controls[0]
        if any(p.quarantine or p.task not in owned.known_tasks for p in taken.pairs):
            self._place_doubtful(batch, owned)
        self._ingest(batch, owned, taken.pairs, self._target(batch, owned))

    def _target(self, batch: Batch, owned: Owned) -> Position:
        return Position(owned.positions[batch.tp.topic].log, batch.next_offset)

    def _is_placed(self, batch: Batch, owned: Owned) -> bool:
        """Whether a call without an answer had moved the position (another owner is fenced)."""
        stored = self._store.positions(batch.tp.partition).get(batch.tp.topic)
        batch.unsure = False
        if stored != self._target(batch, owned):
            return False
        owned.positions[batch.tp.topic] = stored
        return True

    def _place_doubtful(self, batch: Batch, owned: Owned) -> None:
        """Place pairs that may be refused while the position stays; post those that were.

        So a refused pair is on the dead-letter topic before the position passes it.  Should this
        process die in between, all come again, and what was placed is a duplicate by its id.
        """
        taken = batch.taken
        new = {p.task for p in taken.pairs if p.task not in owned.known_tasks}
        # all of a new task's pairs, so that they stay in the order of the log
        doubtful = [p for p in taken.pairs if p.quarantine or p.task in new]
        here = owned.positions[batch.tp.topic]
        outcomes = self._ingest(batch, owned, doubtful, here)
        records = {record.offset: record for record in batch.records}
        for pair, outcome in zip(doubtful, outcomes, strict=True):
            if outcome in REFUSALS:
                detail = f"task {pair.task}: {REFUSALS[outcome]}"
                taken.letters.append(Letter(records[pair.offset], outcome, detail))
            elif not pair.quarantine and outcome != "duplicate":
                owned.known_tasks.add(pair.task)
        placed = {pair.offset for pair in doubtful}
        taken.pairs = [pair for pair in taken.pairs if pair.offset not in placed]
        self._post(batch)

    def _ingest(
        self, batch: Batch, owned: Owned, pairs: Sequence[IncomingPair], position: Position
    ) -> list[IngestOutcome]:
        tp = batch.tp
        try:
            outcomes = self._store.ingest(
                tp.partition,
                pairs,
                epoch=owned.epoch,
                topic=tp.topic,
                expected=owned.positions[tp.topic],
                position=position,
                now_ms=self._clock.wall_ms(),
            )
        except StoreUnavailableError:
            batch.unsure = True
            raise
        owned.positions[tp.topic] = position
        counts = Counter((p.task, outcome) for p, outcome in zip(pairs, outcomes, strict=True))
        for (task, outcome), count in counts.items():
            self._events.pairs(task, outcome, count)
        self._budget.added(tp.partition, sum(len(pair.record) for pair in pairs))
        return outcomes

    def _post(self, batch: Batch) -> None:
        """Put letters on the dead-letter topic; remember what became of the pairs in them."""
        letters = batch.taken.letters
        new = letters[batch.posted :]
        if new:
            self._dead_letters.put(new)
            batch.posted = len(letters)
        for letter in new:
            self._events.dead_letter(letter.reason)
            log.warning(
                "dead_letter",
                reason=letter.reason,
                detail=letter.detail,
                topic=letter.record.topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
                size_bytes=len(letter.record.value or b""),
            )
        for letter in letters[batch.noted :]:
            if named := names_of(letter.record):
                self._store.note_dead_letter(*named, letter.reason, self._clock.wall_ms())
            batch.noted += 1
