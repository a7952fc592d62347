"""Candidates against champions: scored on held-out pairs by the engine that serves, judged by the gate.

A candidate is compared with the best recent champion, the reference; scores of pairs that stay held out
are kept, so that each is made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeseq_core.engine import Engine, PairRow, Score
from edgeseq_core.errors import SnapshotError
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.held_out import HeldOut
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.gate import SINCE_DRIFT, Gate, summary
from edgeseq_core.snapshots.manifest import GateReport
from edgeseq_core.snapshots.registry import SnapshotRegistry, TaskStatus

CANDIDATE = "candidate"  # slots of the contest's own engine; a rival's is its snapshot id
ALTERNATIVE = "alternative"
IDENTITY = "identity"


@dataclass
class Rival:
    """A snapshot in the contest's engine, and what it scored on the pairs that are held out now."""

    snapshot_id: str | None  # None: the bare base
    foreign: bool = False  # of another base, or to be forgotten: the bare base stands for it
    scores: dict[str, Score] = field(default_factory=dict)  # by pair key

    @property
    def slot(self) -> str:
        """Where the engine has it."""
        return IDENTITY if self.foreign or self.snapshot_id is None else self.snapshot_id


@dataclass
class Standing:
    """A task's champion, and the best recent one, with which candidates are compared."""

    champion: Rival
    reference: Rival

    @property
    def slots(self) -> set[str]:
        """What the engine keeps for the task."""
        return {self.champion.slot, self.reference.slot} - {IDENTITY}


@dataclass(frozen=True)
class Contender:
    """A state that is offered, its verdict, and what it scored."""

    payload: bytes
    report: GateReport
    alternative: bool = False  # what the strategy would rather offer than its own state
    scores: Mapping[str, Score] = field(default_factory=dict)


class Contest:
    """All open tasks' rivals in one engine, and the gate."""

    def __init__(
        self, engine: Engine, registry: SnapshotRegistry, base_digest: str, config: LearningSettings
    ) -> None:
        self.engine = engine
        self._registry, self._base_digest, self._config = registry, base_digest, config
        self._gate = Gate(
            loss_clip=config.gate_loss_clip,
            loss_slack=config.gate_loss_slack,
            answer_slack=config.gate_answer_slack,
            exact_slack=config.gate_exact_slack,
            drift_gain=config.gate_drift_gain,
            min_pairs=config.gate_min_pairs,
        )

    # --- who stands where --------------------------------------------------------------------------

    def enter(self, name: str, status: TaskStatus, learner: TaskLearner) -> Standing:
        """Champion and reference of a task as the registry has them, ready in the engine."""
        if (serving := status.champion) is None:
            return Standing(bare := Rival(None), bare)
        record = self._registry.record(name, serving)
        if status.purging or record.manifest.base != self._base_digest:
            return Standing(Rival(serving, foreign=True), Rival(None))
        champion = Rival(serving)
        payload = self._registry.payload(record.manifest)
        self.engine.swap(serving, serving, payload)
        learner.follow(serving, payload)
        gate = record.gate
        # A person's choice stands for itself; so does a champion that led when it was offered.
        if gate is None or gate.verdict == "hold" or gate.leads or gate.reference_id is None:
            return Standing(champion, champion)
        before = self._registry.record(name, gate.reference_id)
        try:
            payload = self._registry.payload(before.manifest)
        except SnapshotError:  # its bytes are not kept any more
            return Standing(champion, champion)
        if before.manifest.base != self._base_digest:
            return Standing(champion, champion)
        self.engine.swap(gate.reference_id, gate.reference_id, payload)
        return Standing(champion, Rival(gate.reference_id))

    def succeed(self, standing: Standing, snapshot_id: str, won: Contender) -> None:
        """A new champion; one that leads is the next reference, and what no one needs is let go."""
        before, champion = standing.slots, Rival(snapshot_id, scores=dict(won.scores))
        self.engine.swap(snapshot_id, snapshot_id, won.payload)
        standing.champion = champion
        if won.report.leads:
            standing.reference = champion
        for slot in before - standing.slots:
            self.engine.drop(slot)

    def leave(self, standing: Standing) -> None:
        """Let a task's rivals go."""
        for slot in standing.slots:
            self.engine.drop(slot)

    # --- the verdict -------------------------------------------------------------------------------

    def judge(
        self,
        learner: TaskLearner,
        held_out: HeldOut,
        standing: Standing,
        learned: Sequence[Example],
    ) -> Contender:
        """Quantize what was learnt and score it against the reference; ``learned``: since the last offer."""
        payload, candidate = learner.payload(), Rival(CANDIDATE)
        try:
            self.engine.swap(CANDIDATE, CANDIDATE, payload)
        except SnapshotError as error:  # what the serving engine refuses, as numbers that are none
            reference = standing.reference.snapshot_id
            report = GateReport(
                verdict="hold", reasons=(str(error),), leads=False, reference_id=reference
            )
            return Contender(payload, report)
        better = self._alternative(learner, held_out, candidate)
        if better:
            payload, candidate = better
        report = self._report(learner, held_out, standing, candidate, learned)
        return Contender(payload, report, better is not None, candidate.scores)

    def _alternative(
        self, learner: TaskLearner, held_out: HeldOut, candidate: Rival
    ) -> tuple[bytes, Rival] | None:
        """What the strategy would rather offer, if its held-out loss is no larger than the candidate's."""
        payload, drift = learner.alternative(), held_out.is_mixed(learner)
        held = {e.key: e for e in (held_out.since_drift(learner) if drift else held_out.all)}
        if payload is None or not held:
            return None
        rival = Rival(ALTERNATIVE)
        try:
            self.engine.swap(ALTERNATIVE, ALTERNATIVE, payload)
        except SnapshotError:
            return None
        losses = []
        for one in (candidate, rival):
            self._measure(one, held)
            losses.append(self._gate.loss(list(one.scores.values())))
        return (payload, rival) if losses[1] <= losses[0] else None

    def _report(
        self,
        learner: TaskLearner,
        held_out: HeldOut,
        standing: Standing,
        candidate: Rival,
        learned: Sequence[Example],
    ) -> GateReport:
        sets: dict[str, list[Example]] = {
            "recent": list(held_out.recent),
            "probe": list(held_out.probe),
        }
        if len(held_out.recent) < self._config.gate_min_pairs:
            sets["learnt"] = list(learned)
        drift = held_out.is_mixed(learner)
        if drift:
            sets[SINCE_DRIFT] = held_out.since_drift(learner)
        sets = {kind: examples for kind, examples in sets.items() if examples}
        rivals = (candidate, standing.reference, standing.champion)
        for rival in rivals:
            self._measure(rival, {e.key: e for examples in sets.values() for e in examples})
        scored = [
            {kind: [rival.scores[e.key] for e in examples] for kind, examples in sets.items()}
            for rival in rivals
        ]
        report = self._gate.decide(scored[0], scored[1], drift=drift)
        champion = {kind: summary(scores) for kind, scores in scored[2].items()}
        return report.model_copy(
            update={"champion": champion, "reference_id": standing.reference.snapshot_id}
        )

    def _measure(self, rival: Rival, held: Mapping[str, Example]) -> None:
        """Score what a rival has not been scored on, and forget pairs that are held out no more."""
        unknown = [key for key in held if key not in rival.scores]
        rows = [PairRow(rival.slot, held[key].source, held[key].target) for key in unknown]
        made = self.engine.score(rows) if rows else []
        rival.scores |= dict(zip(unknown, made, strict=True))
        rival.scores = {key: rival.scores[key] for key in held}
