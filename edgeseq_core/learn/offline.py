"""The same learner over any pairs, in one process and without a server: for researchers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from edgeseq_core.clock import Clock, SystemClock
from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.learn.loop import LearnerLoop, Turn
from edgeseq_core.learn.serving_engine import serving_engine
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.replay.buffer import IncomingPair, Position
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.replay.record import PairRecord, pack
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.memory_registry import MemoryRegistry

LOG, TOPIC = "offline", "pairs"
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class OfflineProgress:
    """After a turn: pairs read, prequential scores so far, the serving snapshot and its held-out accuracy."""

    pairs: int
    prequential_loss: float  # nats a token, fading
    prequential_accuracy: float  # fading
    snapshot_id: str | None
    held_out_accuracy: float | None  # of the champion on ``held_out``; None between evaluations
    turn: Turn


class OfflineLearner:
    """Store, registry and learner of one process; what `learn` and the tests run."""

    def __init__(self, base: Base, config: LearningSettings, *, clock: Clock | None = None) -> None:
        self.base, self.config = base, config
        self.clock = clock or SystemClock()
        self.buffer = MemoryStore(partitions=1)
        self.registry = MemoryRegistry(self.buffer.memory)
        self.loop = LearnerLoop(
            self.buffer,
            self.registry,
            base,
            config,
            partitions=[0],
            partition_count=1,
            clock=self.clock,
        )
        self._epoch = self.buffer.acquire("consumer", 0)
        self._offset = 0

    def ingest(
        self, task: str, pairs: Iterable[tuple[str, str]], *, correction: bool = False
    ) -> int:
        """Put pairs into the fresh part, as the consumer does; returns how many."""
        now_ms, incoming = self.clock.wall_ms(), []
        before = Position(LOG, self._offset) if self._offset else None
        for source, target in pairs:
            record = PairRecord(
                producer=LOG,
                pair_id=str(self._offset),
                arrived_ms=now_ms,
                topic=TOPIC,
                offset=self._offset,
                correction=correction,
                source_ids=tuple(self.base.vocabulary.encode(source)),
                target_ids=tuple(self.base.vocabulary.encode(target)),
            )
            incoming.append(
                IncomingPair(
                    task=task,
                    producer=LOG,
                    pair_id=record.pair_id,
                    topic=TOPIC,
                    offset=self._offset,
                    arrived_ms=now_ms,
                    correction=correction,
                    record=pack(record, self.base.header.record_digest),
                )
            )
            self._offset += 1
        self.buffer.ingest(
            0,
            incoming,
            epoch=self._epoch,
            topic=TOPIC,
            expected=before,
            position=Position(LOG, self._offset),
            now_ms=now_ms,
        )
        return len(incoming)

    def fits(self, pair: tuple[str, str]) -> bool:
        """Whether the base can read source and target; longer ones must not be ingested."""
        most = self.base.config.max_tokens - 1
        return all(len(self.base.vocabulary.encode(text)) <= most for text in pair)

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        """The champion's greedy answers (the bare base's while there is none), in batches of 64."""
        engine = serving_engine(self.base, BatchEncoder(self.base))
        engine.swap(task, task, self.payload(task) or self.loop.identity_payload())
        out: list[str] = []
        for at in range(0, len(sources), 64):
            rows = [SourceRow(task, source) for source in sources[at : at + 64]]
            out += [generation.target for generation in engine.generate(rows, Limits())]
        return out

    def payload(self, task: str) -> bytes | None:
        """The champion's int8 bytes."""
        champion = self.registry.status(task).champion
        if champion is None:
            return None
        return self.registry.payload(self.registry.record(task, champion).manifest)


def learn_pairs(
    learner: OfflineLearner,
    task: str,
    pairs: Iterable[tuple[str, str]],
    *,
    held_out: Pairs = (),
    chunk: int = 16,
    evaluate_every: int = 500,
) -> Iterator[OfflineProgress]:
    """Feed ``pairs`` in chunks and take turns until all are learnt; yields after every turn.

    ``held_out`` pairs are answered by the champion every ``evaluate_every`` pairs and at the end; they
    are never learnt.
    """
    stream, read, next_evaluation = iter(pairs), 0, evaluate_every
    last: Turn | None = None
    while True:
        taken = list(islice(stream, chunk))
        if taken:
            read += learner.ingest(task, taken)
        turn = learner.loop.run_once()
        if turn is None and not taken:
            break
        if turn is None:
            continue
        last, accuracy = turn, None
        if held_out and read >= next_evaluation:
            next_evaluation += evaluate_every
            accuracy = held_out_accuracy(learner, task, held_out)
        yield _progress(learner, task, read, turn, accuracy)
    if last is not None:
        accuracy = held_out_accuracy(learner, task, held_out) if held_out else None
        yield _progress(learner, task, read, last, accuracy)


def held_out_accuracy(learner: OfflineLearner, task: str, pairs: Pairs) -> float:
    """Share of pairs that the champion answers exactly."""
    answers = learner.answers(task, [source for source, _ in pairs])
    return sum(a == t for a, (_, t) in zip(answers, pairs, strict=True)) / len(pairs)


def _progress(
    learner: OfflineLearner, task: str, read: int, turn: Turn, accuracy: float | None
) -> OfflineProgress:
    progress = turn.learner.progress
    return OfflineProgress(
        pairs=read,
        prequential_loss=progress.prequential_loss,
        prequential_accuracy=progress.prequential_exact,
        snapshot_id=learner.registry.status(task).champion,
        held_out_accuracy=accuracy,
        turn=turn,
    )
