"""The learner's loop: fair turns over tasks, one fenced commit a step, then candidate, gate, registry.

A turn of a task: draw fresh pairs (corrections first) and replay, score and train, commit checkpoint,
journal and moves as one, and offer the int8 candidate.  Where nothing waits, it rehearses on replay.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from edgeseq_core.clock import Clock
from edgeseq_core.errors import FencedError, StateVersionError
from edgeseq_core.keys import partition_of
from edgeseq_core.learn.contest import IDENTITY, Contender, Contest, Standing
from edgeseq_core.learn.example import Example, read_example
from edgeseq_core.learn.held_out import HeldOut
from edgeseq_core.learn.learner import StepReport, TaskLearner
from edgeseq_core.learn.serving_engine import serving_engine
from edgeseq_core.learn.studies import settled, study_on
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.replay.buffer import Move, ReplayBuffer, StepCommit, StoredPair
from edgeseq_core.settings import EngineChoice, LearningSettings
from edgeseq_core.snapshots.manifest import (
    GateReport,
    SnapshotManifest,
    SnapshotRecord,
    payload_digest,
)
from edgeseq_core.snapshots.registry import Offer, SnapshotRegistry

MAX_OPEN_TASKS = 64  # in memory, about 3 MB each at d_model 128
MAX_ARRIVALS = 4_096  # arrival times a snapshot lists, for the freshness metric


@dataclass(frozen=True)
class GateEvent:
    """A gate decision and whether the candidate serves now."""

    snapshot_id: str
    report: GateReport
    serves: bool


@dataclass(frozen=True)
class Turn:
    """What a turn did; the service turns it into metrics and log lines."""

    task: str
    fresh: int  # pairs drawn
    learnt: int  # of them trained on, with released held-out ones
    step: StepReport
    learner: TaskLearner
    drifted: bool  # the last drift is recent: the probe still holds pairs from before it
    gate: GateEvent | None


class Observer(Protocol):
    """Times the stages of a turn."""

    def stage(self, task: str, stage: str, seconds: float) -> None:
        """Stages: draw, train, commit, gate."""


@dataclass
class _Task:
    """A task that this loop has opened: its learner and what the store confirmed."""

    learner: TaskLearner
    branch: int
    step: int
    last_step: int
    standing: Standing
    held_out: HeldOut
    arrivals: list[int] = field(default_factory=list)  # of pairs no champion has learnt yet
    offered_at: float = 0.0  # monotonic seconds
    checkpoint_digest: str = ""
    rehearsals: int = 0  # since the last step with fresh pairs


class LearnerLoop:
    """Learns all tasks of the partitions it owns; one instance a process, one thread."""

    def __init__(  # noqa: PLR0913 - the parts of a loop
        self,
        buffer: ReplayBuffer,
        registry: SnapshotRegistry,
        base: Base,
        config: LearningSettings,
        *,
        partitions: Sequence[int],
        partition_count: int,
        clock: Clock,
        observer: Observer | None = None,
        gates: bool = True,
        engine: EngineChoice = "auto",
    ) -> None:
        """``gates=False`` only learns: `rebuild` submits the candidates that a journal names.

        ``engine``: which one scores for the gate, the one that serves.
        """
        self._buffer, self._registry, self._base = buffer, registry, base
        self._config = settled(base, config)
        self._partitions, self._count, self._clock = list(partitions), partition_count, clock
        self._observer, self._gates = observer, gates
        self._encoder = CachingEncoder(base, calibrated_layers=config.encoder_layers)
        self._study = study_on(base, self._config, self._encoder)
        scores = serving_engine(base, self._encoder, engine)
        self._contest = Contest(scores, registry, base.digest, self._config)
        self._epochs = {p: buffer.acquire("learner", p) for p in self._partitions}
        self._open: dict[str, _Task] = {}
        self._order: deque[str] = deque()
        self._refused: set[str] = set()
        # Tasks whose last step may not have been offered: a crash came between commit and offer.
        self._unsure = deque(t for p in self._partitions for t in buffer.tasks(p))
        self._anew = registry.relearning(self._partitions)  # task -> branch: to be learnt anew

    # --- turns -------------------------------------------------------------------------------------

    def run_once(self) -> Turn | None:
        """One turn of the task whose turn it is; None when there was nothing to do."""
        waiting = self.waiting()
        for task in waiting:
            if task not in self._order:
                self._order.append(task)
        anew = next(iter(self._anew), None)  # one at a time, in turn with those that wait
        if anew is not None and anew not in self._order:
            self._order.append(anew)
        due = {task: sum(count) for task, count in waiting.items()}
        chosen = next((t for t in self._order if waiting.get(t, (0, 0))[0]), None)
        chosen = chosen or next((t for t in self._order if due.get(t) or t == anew), None)
        if chosen is None:
            return self._catch_up() or self._rehearse()
        self._order.remove(chosen)
        self._order.append(chosen)
        if not due.get(chosen):
            return self._fenced(chosen, partial(self._rehearsal, chosen))
        return self._fenced(chosen, partial(self._turn, chosen, more=due[chosen]))

    def look(self) -> None:
        """Notice another learner of an owned partition (raises FencedError), and tasks to learn anew."""
        self._buffer.confirm("learner", self._epochs)
        found = self._registry.relearning(self._partitions)
        for name in [name for name, branch in found.items() if self._anew.get(name) != branch]:
            self._close(name)
            self._forget_sources()  # maybe some that were purged
        self._anew = found

    def waiting(self, *, known: bool = False) -> dict[str, tuple[int, int]]:
        """Waiting (corrections, bulk) pairs in the owned partitions; ``known``: also tasks with none."""
        found = dict.fromkeys(self._open, (0, 0)) if known else {}
        for partition in self._partitions:
            found |= self._buffer.waiting(partition)
        return found

    def oldest_ms(self, task: str) -> int | None:
        """When the longest-waiting pair of a task arrived (wall clock)."""
        heads = self._buffer.draw(task, corrections=1, bulk=1, replay=()).fresh
        return min((self._example(pair).arrived_ms for pair in heads), default=None)

    def _fenced(self, name: str, turn: Callable[[_Task], Turn | None]) -> Turn | None:
        """Run a turn; after a rollback or a change of owner, forget the task and open it anew."""
        try:
            done = turn(self._opened(name))
        except BaseException as error:
            # The learner in memory may be ahead of the store now: it is read anew.
            self._close(name)
            self._forget_sources()  # maybe of a purge
            self._unsure.append(name)
            if not isinstance(error, FencedError):
                raise
            if name in self._refused:  # opened anew and refused again: another owner has taken over
                raise
            self._refused.add(name)
            return None
        self._refused.discard(name)
        return done

    def _turn(self, name: str, task: _Task, *, more: int) -> Turn:
        config, learner = self._config, task.learner
        began = self._clock.monotonic()
        drawn = self._buffer.draw(
            name,
            corrections=config.fresh_per_step,
            bulk=config.fresh_per_step,
            replay=learner.replay_ranks(),
        )
        fresh = [self._example(pair) for pair in drawn.fresh[: config.fresh_per_step]]
        held = task.held_out.elect(learner, fresh)
        released, moves = task.held_out.take(
            learner, [e for e, out in zip(fresh, held, strict=True) if out]
        )
        began = self._timed(name, "draw", began)
        learned = [e for e, out in zip(fresh, held, strict=True) if not out]
        replay = learner.replayed(
            [self._example(pair) for pair in drawn.replay], [*learned, *released]
        )
        step = task.last_step + 1
        report = learner.step(step, fresh, [not out for out in held], [*released, *replay])
        for example in fresh:
            log = example.key.rsplit(":", 2)[0]
            learner.progress.positions[example.topic] = f"{log}|{example.offset + 1}"
        moves += [
            Move(e.key, e.part, "reservoir", e.priority, report.notes.get(e.key, b""))
            for e in (*learned, *released)
        ]
        began = self._timed(name, "train", began)
        self._commit(name, task, step, moves, fresh=fresh, held=held, released=released)
        task.arrivals = [*task.arrivals, *(e.arrived_ms for e in learned)][-MAX_ARRIVALS:]
        task.rehearsals = 0
        began = self._timed(name, "commit", began)
        gate = None
        idle = more <= len(fresh)
        due = idle or began - task.offered_at >= config.gate_interval_s
        if self._gates and due and not learner.progress.relearning:
            gate = self._offer(name, task, learned)
            self._timed(name, "gate", began)
        count = len(learned) + len(released)
        return Turn(
            name, len(fresh), count, report, learner, task.held_out.is_mixed(task.learner), gate
        )

    def _catch_up(self) -> Turn | None:
        """Offer a step that was committed and never offered, so that what it learnt is served."""
        while self._unsure:
            name = self._unsure.popleft()
            last = self._buffer.journal(name, after=-1)
            stepped = last and json.loads(last[0])["kind"] == "step"
            if stepped and name not in self._anew:
                return self._fenced(name, partial(self._late_offer, name))
        return None

    def _late_offer(self, name: str, task: _Task) -> Turn:
        gate = self._offer(name, task, [])
        nothing = StepReport([], 0.0, "", drift=False)
        return Turn(name, 0, 0, nothing, task.learner, task.held_out.is_mixed(task.learner), gate)

    def _rehearse(self) -> Turn | None:
        """A replay-only step for the task that has rehearsed least since its last fresh pairs."""
        due = [
            n for n, t in self._open.items() if t.step > 0 and t.rehearsals < t.learner.rehearsals
        ]
        if not due:
            return None
        name = min(due, key=lambda n: self._open[n].rehearsals)
        return self._fenced(name, partial(self._rehearsal, name))

    def _rehearsal(self, name: str, task: _Task) -> Turn | None:
        """A step on replay alone; a task that learns anew is offered after the last one."""
        learner, anew = task.learner, name in self._anew
        task.rehearsals += 1
        drawn = self._buffer.draw(name, corrections=0, bulk=0, replay=learner.replay_ranks())
        if not drawn.replay:
            learner.progress.relearning = 0  # nothing to learn anew: it begins as the bare base
            return self._late_offer(name, task) if anew and self._gates else None
        if not (replay := learner.replayed([self._example(pair) for pair in drawn.replay])):
            return None  # nothing since a drift is in the reservoir yet
        step = task.last_step + 1
        report = learner.step(step, [], [], replay)
        self._commit(name, task, step, [], fresh=[], held=[], released=[])
        last = anew or task.rehearsals >= learner.rehearsals
        offers = last and self._gates and not learner.progress.relearning
        gate = self._offer(name, task, replay if anew else []) if offers else None
        return Turn(name, 0, 0, report, learner, task.held_out.is_mixed(task.learner), gate)

    def submit_as(self, name: str, report: GateReport, *, alternative: bool = False) -> GateEvent:
        """Offer a task's present state, or its alternative, under a verdict that was reached before."""
        task = self._opened(name)
        payload = (task.learner.alternative() if alternative else None) or task.learner.payload()
        return self._submit(name, task, Contender(payload, report, alternative))

    def follow(self, name: str, snapshot_id: str | None) -> None:
        """Let a task's strategy look at the champion that it looked at before, whatever serves now."""
        learner = self._opened(name).learner
        if snapshot_id is None:
            learner.follow(None)
        elif learner.champion is None or learner.champion.snapshot_id != snapshot_id:
            manifest = self._registry.record(name, snapshot_id).manifest
            learner.follow(snapshot_id, self._registry.payload(manifest))

    def adopt(self, name: str, learner: TaskLearner, report: GateReport) -> GateEvent:
        """Go on with a learner that was made elsewhere, and offer it under the verdict reached there."""
        task = self._opened(name)
        step = task.last_step + 1
        learner.progress.parent, learner.progress.step = task.step, step
        task.learner = learner
        self._commit(name, task, step, [], fresh=[], held=[], released=[])
        return self._submit(name, task, Contender(learner.payload(), report))

    def reopen(self, name: str) -> None:
        """Forget what this loop knows of a task; its next turn reads the store."""
        self._close(name)
        self._anew = self._registry.relearning(self._partitions)

    # --- commit, candidate, gate -------------------------------------------------------------------

    def _commit(
        self,
        name: str,
        task: _Task,
        step: int,
        moves: Sequence[Move],
        *,
        fresh: Sequence[Example],
        held: Sequence[bool],
        released: Sequence[Example],
    ) -> None:
        line = {
            "kind": "step",
            "step": step,
            "parent": task.step,
            "branch": task.branch,
            "corrections": [e.key for e in fresh if e.part == "corrections"],
            "bulk": [e.key for e in fresh if e.part == "bulk"],
            "held_out": [e.key for e, out in zip(fresh, held, strict=True) if out],
            "released": [e.key for e in released],
        }
        if task.learner.strategy.follows:  # a person may choose another one at any time
            champion = task.learner.champion
            line["champion"] = champion.snapshot_id if champion else None
        checkpoint = task.learner.to_checkpoint()
        self._buffer.commit(
            StepCommit(
                task=name,
                epoch=self._epoch(name),
                branch=task.branch,
                expected_step=task.step,
                step=step,
                checkpoint=checkpoint,
                journal=json.dumps(line, separators=(",", ":")),
                moves=moves,
            )
        )
        task.step = task.last_step = step
        task.checkpoint_digest = hashlib.sha256(checkpoint).hexdigest()

    def _offer(self, name: str, task: _Task, learned: Sequence[Example]) -> GateEvent:
        """Put the candidate and its verdict into the registry."""
        made = self._contest.judge(task.learner, task.held_out, task.standing, learned)
        return self._submit(name, task, made)

    def _submit(self, name: str, task: _Task, made: Contender) -> GateEvent:
        """Manifest, journal line and bytes into the registry, in one step."""
        payload, report = made.payload, made.report
        learner, now_ms = task.learner, self._clock.wall_ms()
        manifest = SnapshotManifest(
            task=name,
            base=self._base.digest,
            parent=task.standing.champion.snapshot_id,
            step=task.step,
            positions=dict(learner.progress.positions),
            payload_digest=payload_digest(payload),
            payload_bytes=len(payload),
            checkpoint_digest=task.checkpoint_digest,
            config=self._config.in_manifest() | {"calibration": learner.size()},
        )
        record = SnapshotRecord(
            manifest=manifest, gate=report, created_ms=now_ms, arrivals_ms=tuple(task.arrivals)
        )
        line = {
            "kind": "gate",
            "step": task.step,
            "snapshot_id": manifest.snapshot_id,
            "verdict": report.verdict,
            "reasons": report.reasons,
            "reference": report.reference_id,
            "leads": report.leads,
        }
        if made.alternative:
            line["alternative"] = True
        serves = self._registry.offer(
            Offer(
                task=name,
                epoch=self._epoch(name),
                branch=task.branch,
                record=record,
                payload=payload,
                expected_champion=task.standing.champion.snapshot_id,
                journal=json.dumps(line, separators=(",", ":")),
                reference=report.reference_id,
            )
        )
        task.offered_at = self._clock.monotonic()
        self._anew.pop(name, None)
        if serves:
            self._contest.succeed(task.standing, manifest.snapshot_id, made)
            learner.follow(manifest.snapshot_id, payload)
            task.arrivals = []
        return GateEvent(manifest.snapshot_id, report, serves)

    # --- opening a task ----------------------------------------------------------------------------

    def _opened(self, name: str) -> _Task:
        """The task as this loop knows it, else from the store."""
        if name in self._open:
            self._open[name] = self._open.pop(
                name
            )  # the order of the dictionary is the order of use
            return self._open[name]
        if self._contest.engine.snapshot_id(IDENTITY) is None:
            self._contest.engine.swap(IDENTITY, IDENTITY, self.identity_payload())
        state, status = self._buffer.state(name), self._registry.status(name)
        if status.base not in (None, self._base.digest):
            raise StateVersionError(
                f"task {name} was changed to base {str(status.base)[:12]}, this one is "
                f"{self._base.digest[:12]}: set base.path to that base, or change it back"
            )
        if state.checkpoint is None:
            learner = TaskLearner(self._base, name, self._config, self._study)
        else:
            learner = TaskLearner.from_checkpoint(
                state.checkpoint, self._base, name, self._config, self._study
            )
        standing = self._contest.enter(name, status, learner)
        held_out = HeldOut(self._config)
        task = _Task(learner, state.branch, state.step, state.last_step, standing, held_out)
        if state.checkpoint is not None:
            task.checkpoint_digest = hashlib.sha256(state.checkpoint).hexdigest()
        held_out.recent.extend(self._example(pair) for pair in self._buffer.read(name, "recent"))
        held_out.probe.extend(self._example(pair) for pair in self._buffer.read(name, "probe"))
        if state.checkpoint is None and state.last_step:
            kept = [self._example(pair) for pair in self._buffer.read(name, "reservoir")]
            taken = [*kept, *held_out.all]
            learner.begin_anew(kept, held_out.all, self._positions(name, taken))
        self._open[name] = task
        if name not in self._order:
            self._order.append(name)
        while len(self._open) > MAX_OPEN_TASKS:
            self._close(next(iter(self._open)))
        return task

    def _positions(self, name: str, taken: Sequence[Example]) -> dict[str, str]:
        """Up to where a task's pairs were taken: as it was offered last, and what came after that."""
        newest = self._registry.history(name, last=1)
        positions = dict(newest[0].manifest.positions) if newest else {}
        for example in taken:
            log = example.key.rsplit(":", 2)[0]
            before, _, offset = positions.get(example.topic, f"{log}|0").rpartition("|")
            if before == log and example.offset >= int(offset):
                positions[example.topic] = f"{log}|{example.offset + 1}"
        return positions

    def _close(self, name: str) -> None:
        """Let a task go; all that matters of it is in the store."""
        task = self._open.pop(name, None)
        if task is not None:
            self._contest.leave(task.standing)

    def _forget_sources(self) -> None:
        self._study.forget()
        self._encoder.forget()

    def identity_payload(self) -> bytes:
        """What serves at pair 0: a calibration that changes nothing."""
        return TaskLearner(self._base, IDENTITY, self._config, self._study).payload()

    def _example(self, pair: StoredPair) -> Example:
        return read_example(pair, self._base.vocabulary, self._base.header.record_digest)

    def _epoch(self, name: str) -> int:
        return self._epochs[partition_of(name, self._count)]

    def _timed(self, name: str, stage: str, began: float) -> float:
        now = self._clock.monotonic()
        if self._observer:
            self._observer.stage(name, stage, now - began)
        return now
