"""The best recent champion is what candidates are compared with, also after a restart."""

from __future__ import annotations

from edgeseq_core.learn.loop import _Task
from edgeseq_core.model.base import Base
from edgeseq_core.snapshots.manifest import GateReport
from tests.learn.rig import Learner, numbered

TASK = "numbers"


def taught(base: Base) -> Learner:
    learner = Learner(base)
    learner.ingest(TASK, numbered(0, 48))
    learner.learn()
    return learner


def opened(learner: Learner) -> _Task:
    learner.loop.reopen(TASK)
    return learner.loop._opened(TASK)


def succeed(learner: Learner, *, leads: bool) -> str:
    """One more step, and its candidate promoted under a report of the test's own."""
    start = int(learner.loop._open[TASK].learner.progress.scored) + 1_000
    learner.ingest(TASK, numbered(start, start + 8))
    learner.loop._gates = False
    learner.learn()
    learner.loop._gates = True
    reference = learner.loop._open[TASK].standing.reference.snapshot_id
    report = GateReport(verdict="promote", reasons=("",), leads=leads, reference_id=reference)
    event = learner.loop.submit_as(TASK, report)
    assert event.serves
    return event.snapshot_id


def test_a_champion_that_leads_is_the_next_reference_and_others_are_not(base: Base) -> None:
    learner = taught(base)
    best = succeed(learner, leads=True)
    for _ in range(3):
        later = succeed(learner, leads=False)
        task = learner.loop._open[TASK]
        assert task.standing.champion.snapshot_id == later != best
        assert task.standing.reference.snapshot_id == best
    learner.restart()
    task = opened(learner)
    assert (task.standing.champion.snapshot_id, task.standing.reference.snapshot_id) == (
        later,
        best,
    )
    newest = succeed(learner, leads=True)
    assert learner.loop._open[TASK].standing.reference.snapshot_id == newest
    assert learner.loop._contest.engine.snapshot_id(best) is None


def test_without_its_bytes_the_champion_takes_the_reference_s_place(base: Base) -> None:
    learner = taught(base)
    best = succeed(learner, leads=True)
    later = succeed(learner, leads=False)
    del learner.buffer.memory.partition_of(TASK).task(TASK).payloads[best]
    task = opened(learner)
    assert task.standing.reference is task.standing.champion
    assert task.standing.champion.snapshot_id == later


def test_a_snapshot_that_a_person_chose_is_its_own_reference(base: Base) -> None:
    learner = taught(base)
    best = succeed(learner, leads=True)
    chosen = succeed(learner, leads=True)
    learner.registry.rollback(
        TASK, best, expected_champion=chosen, now_ms=0, journal='{"kind": "rollback"}'
    )
    task = opened(learner)
    assert task.standing.champion.snapshot_id == task.standing.reference.snapshot_id == best


def test_reports_show_reference_and_champion_apart(base: Base) -> None:
    learner = taught(base)
    best = succeed(learner, leads=True)
    later = succeed(learner, leads=False)
    learner.ingest(TASK, numbered(5_000, 5_008))
    (turn,) = learner.learn()
    assert turn.gate is not None
    report = turn.gate.report
    assert report.reference_id == best
    assert report.champion.keys() == report.reference.keys() == report.candidate.keys()
    assert learner.registry.history(TASK)[-1].manifest.parent == later
