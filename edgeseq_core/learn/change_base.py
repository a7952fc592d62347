"""From one base to another: every stored pair in the new vocabulary, every task learnt anew on it.

Consumer and learner are stopped for it (their epochs are taken); predictors with the former base answer on.
A record names the base that it was written for, so what was interrupted is called again and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from edgeseq_core.clock import Clock
from edgeseq_core.errors import FencedError, StateVersionError
from edgeseq_core.learn.relearn import relearn
from edgeseq_core.model.base_file import BaseHeader
from edgeseq_core.replay.buffer import PARTS, Recoded, ReplayBuffer, Role, StoredPair
from edgeseq_core.replay.record import (
    PairRecord,
    digest_of,
    owner_of,
    pack,
    pack_held,
    pair_name,
    unpack,
)
from edgeseq_core.snapshots.registry import SnapshotRegistry

AT_ONCE = 500  # pairs a call; Redis serves others in between


@dataclass(frozen=True)
class TaskChange:
    """What became of a task; counts are pairs."""

    task: str
    rewritten: int
    too_long: int  # for the new base: held in the quarantine
    let_out: int  # held by an earlier change; they wait to be learnt
    evicted: int  # by the reservoir, whose byte budget holds fewer of the longer records
    snapshot_id: str | None = None  # one of the new base that serves again
    relearns: bool = False


def change_base(
    buffer: ReplayBuffer,
    registry: SnapshotRegistry,
    *,
    old: BaseHeader,
    new: BaseHeader,
    partitions: int,
    clock: Clock,
) -> Iterator[TaskChange]:
    """Change every task, one after the other; yields what became of each.

    Raises FencedError when a consumer or a learner runs, StateVersionError when a pair is of neither
    base; the tasks before have changed then, and the call may be repeated.
    """
    for partition in range(partitions):
        tasks = buffer.tasks(partition)
        if not tasks:
            continue
        epochs: dict[Role, int] = {
            "consumer": buffer.acquire("consumer", partition),
            "learner": buffer.acquire("learner", partition),
        }
        for task in tasks:
            try:
                changed = _Change(buffer, task, old, new, epochs).run()
            except FencedError as error:
                raise FencedError(
                    f"{error}: stop consumer and learner, then change the base again, "
                    "which goes on where it stopped"
                ) from error
            if registry.status(task).base != new.digest:
                left = registry.left(task, new.digest)
                back = left if left in registry.kept(task) else None
                reason = f"from base {old.digest[:12]}"
                relearn(
                    registry, task, clock=clock, reason=reason, base=new.digest, snapshot_id=back
                )
                changed = replace(changed, snapshot_id=back)
            yield replace(changed, relearns=task in registry.relearning([partition]))


class _Change:
    """The re-encoding of one task's pairs."""

    def __init__(
        self,
        buffer: ReplayBuffer,
        task: str,
        old: BaseHeader,
        new: BaseHeader,
        epochs: Mapping[Role, int],
    ) -> None:
        self._buffer, self._task, self._epochs = buffer, task, epochs
        self._old, self._new = old, new

    def run(self) -> TaskChange:
        """Read, re-encode and write back what is not of the new base yet."""
        stored = [pair for part in PARTS for pair in self._buffer.read(self._task, part)]
        digests = [digest_of(pair.record) for pair in stored]
        strange = {
            d for d in digests if d not in (self._old.record_digest, self._new.record_digest)
        }
        if strange:
            raise StateVersionError(
                f"task {self._task} holds pairs that were encoded for base "
                f"{min(strange).hex()}: name the file of that base as the former one"
            )
        due = [p for p, d in zip(stored, digests, strict=True) if d != self._new.record_digest]
        recoded = [self._recoded(pair) for pair in due]
        let_out = self._let_out()
        before = self._buffer.stats(self._task).pairs["reservoir"]
        for at in range(0, len(recoded) + len(let_out), AT_ONCE):
            self._buffer.reencode(
                self._task, [*recoded, *let_out][at : at + AT_ONCE], epochs=self._epochs
            )
        held = [pair for pair in recoded if pair.destination is None]
        after = self._buffer.stats(self._task).pairs["reservoir"]
        return TaskChange(
            task=self._task,
            rewritten=len(recoded) - len(held),
            too_long=len(held),
            let_out=len(let_out),
            evicted=before - after - sum(pair.origin == "reservoir" for pair in held),
        )

    def _recoded(self, pair: StoredPair) -> Recoded:
        names = (self._task, *owner_of(pair.record))
        record = self._translated(pair.record)
        return Recoded(
            key=pair.key,
            origin=pair.part,
            destination=pair.part if record else None,
            name=pair_name(*names),
            data=self._pack(record) if record else pack_held(names, pair.key, pair.record),
        )

    def _let_out(self) -> list[Recoded]:
        """Pairs held by an earlier change that the new base reads."""
        known = {header.record_digest for header in (self._old, self._new)}
        out = []
        for held in self._buffer.held_back(self._task):
            record = self._translated(held.record) if digest_of(held.record) in known else None
            if record is not None:
                out.append(
                    Recoded(
                        key=held.key,
                        origin=None,
                        destination="corrections" if record.correction else "bulk",
                        name=held.field,
                        data=self._pack(record),
                    )
                )
        return out

    def _pack(self, record: PairRecord) -> bytes:
        return pack(record, self._new.record_digest)

    def _translated(self, data: bytes) -> PairRecord | None:
        """A record in the new vocabulary; None when its text is too long for the new base."""
        header = self._old if digest_of(data) == self._old.record_digest else self._new
        record = unpack(data, header.record_digest)
        ids = [
            tuple(self._new.vocabulary.encode(header.vocabulary.decode(tokens)))
            for tokens in (record.source_ids, record.target_ids)
        ]
        if max(map(len, ids)) >= self._new.config.max_tokens:
            return None
        return replace(record, source_ids=ids[0], target_ids=ids[1])
