"""``edgeseq snapshots``, ``promote``, ``pin``, ``unpin``, ``rollback``: who serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from .options import Common, Task
from .output import emit, percent, say, table, when

if TYPE_CHECKING:
    from edgeseq_core.snapshots.manifest import GateReport

Snapshot = Annotated[str, Parameter(help="Id of a stored snapshot.")]
Reason = Annotated[str, Parameter(help="Why; recorded in the journal.")]


def snapshots(
    task: Task,
    /,
    *,
    limit: Annotated[int, Parameter(help="Only the last so many; 0 is all.")] = 20,
    kept: Annotated[
        bool, Parameter(help="Only those with their bytes: what can be rolled back to or promoted.")
    ] = False,
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """List a task's snapshots, oldest first, with the gate's verdicts."""
    from .names import check_task
    from .store import open_store

    check_task(task)
    with open_store(common.settings()) as store:
        status = store.registry.status(task)
        choices = store.registry.kept(task)
        if kept:
            found = [store.registry.record(task, snapshot_id) for snapshot_id in choices]
            records = sorted(found, key=lambda record: record.created_ms)[-limit:]
        else:
            records = store.registry.history(task, last=limit or None)
    if common.as_json:
        for record in records:
            snapshot_id = record.manifest.snapshot_id
            emit(
                {
                    "snapshot_id": snapshot_id,
                    "champion": snapshot_id == status.champion,
                    "kept": snapshot_id in choices,
                    **record.model_dump(mode="json", exclude={"arrivals_ms"}),
                }
            )
        return
    rows = [
        (
            "●" if record.manifest.snapshot_id == status.champion else "",
            record.manifest.snapshot_id,
            when(record.created_ms),
            "yes" if record.promoted_ms else "",
            percent(record.manifest.config.get("calibration", {}).get("percent_of_base")),
            *_verdict(record.gate),
        )
        for record in records
    ]
    pinned = ", pinned" if status.pinned else ""
    columns = ("", "snapshot", "created", "served", "of base", "gate", "reasons")
    table(columns, rows, title=f"{task}: champion {status.champion or 'none'}{pinned}")


def promote(
    task: Task,
    snapshot: Snapshot,
    /,
    *,
    reason: Reason = "",
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Serve a stored snapshot by your decision."""
    return _decide("promote", task, snapshot, reason, common)


def pin(task: Task, /, *, reason: Reason = "", common: Common = Common()) -> int:  # noqa: B008
    """Hold the champion of a task against promotions."""
    return _decide("pin", task, None, reason, common)


def unpin(task: Task, /, *, reason: Reason = "", common: Common = Common()) -> int:  # noqa: B008
    """Let the gate decide again."""
    return _decide("unpin", task, None, reason, common)


def rollback(
    task: Task,
    snapshot: Annotated[str | None, Parameter(help="Default: the champion before.")] = None,
    /,
    *,
    reason: Reason = "",
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Serve an earlier snapshot, learn on from it, and pin the task."""
    return _decide("rollback", task, snapshot, reason, common)


def _decide(
    action: Literal["promote", "pin", "unpin", "rollback"],
    task: str,
    snapshot: str | None,
    reason: str,
    common: Common,
) -> int:
    with common.client() as client:
        result = client.control(action, task, snapshot_id=snapshot, reason=reason)
    if common.as_json:
        emit(result.model_dump(exclude={"kind", "schema_version"}))
    elif result.ok:
        say((f"{action}: ", "bold green"), f"{task} is served by {result.champion or 'none'}")
    else:
        say((f"{action} refused: ", "bold red"), result.error)
    return int(not result.ok)


def _verdict(gate: GateReport | None) -> tuple[str, str]:
    return ("", "") if gate is None else (gate.verdict, "; ".join(gate.reasons))
