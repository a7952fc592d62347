"""``edgeseq purge`` and ``receipts``: forgetting on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .options import Common, Task
from .output import emit, say, warn, when

if TYPE_CHECKING:
    from edgeseq_core.learn.purge import Receipt


def purge(
    task: Task,
    /,
    *,
    producer: Annotated[str | None, Parameter(help="Whose pairs.")] = None,
    pair: Annotated[str | None, Parameter(help="Only the pair with this id.")] = None,
    whole_task: Annotated[
        bool, Parameter(negative="", help="All pairs of the task, and all that it learnt.")
    ] = False,
    resume: Annotated[
        str | None, Parameter(help="Wait for a purge that was begun, and print its receipt.")
    ] = None,
    wait: Annotated[float, Parameter(help="Seconds to wait for the learner.")] = 600.0,
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Forget pairs: delete every calibration that may have learnt them, and learn the rest anew.

    Exits with 1 when the learner was not done in time; the purge goes on.
    """
    from edgeseq_core.clock import SystemClock
    from edgeseq_core.errors import ConfigError
    from edgeseq_core.learn.purge import Purging
    from edgeseq_core.streams.topics import kept_ms

    from .names import check_task
    from .store import open_store

    check_task(task)
    named = (producer is not None or pair is not None, whole_task, resume is not None)
    if sum(named) != 1:
        raise ConfigError("say what to forget: --producer and --pair, or --whole-task, or --resume")
    settings = common.settings()
    with open_store(settings) as store:
        where = (store.buffer, store.registry, task)
        clock, partitions = SystemClock(), store.partitions
        if resume is not None:
            purging = Purging.resume(*where, purge=resume, partitions=partitions, clock=clock)
        else:
            purging = Purging.begin(
                *where, producer=producer, pair_id=pair, partitions=partitions, clock=clock
            )
        if not purging.wait(wait):
            if common.as_json:
                emit({"purge": purging.asked.purge, "done": False})
            else:
                warn(
                    "the pairs are removed; the learner has not learnt the rest yet: "
                    f"edgeseq purge {task} --resume {purging.asked.purge}"
                )
            return 1
        receipt = purging.receipt(kept_ms=kept_ms(settings.kafka))
        _print(receipt, [], as_json=common.as_json)
    return 0


def receipts(task: Task, /, *, common: Common = Common()) -> int:  # noqa: B008 - frozen
    """List the receipts of a task's purges and check each against the store; 1 when one fails."""
    from edgeseq_core.learn.purge import receipts as read_receipts

    from .names import check_task
    from .store import open_store

    check_task(task)
    failed = False
    with open_store(common.settings()) as store:
        for receipt in read_receipts(store.buffer, task):
            faults = receipt.faults(store.buffer, store.registry)
            failed |= bool(faults)
            _print(receipt, faults, as_json=common.as_json)
    return int(failed)


def _print(receipt: Receipt, faults: list[str], *, as_json: bool) -> None:
    if as_json:
        emit({**receipt.model_dump(mode="json"), "faults": faults})
        return
    say((receipt.purge, "bold"), f" asked {when(receipt.asked_ms)}, done {when(receipt.done_ms)}")
    pairs, deleted = len(receipt.removed) + receipt.held, len(receipt.snapshots_deleted)
    say(f"  {pairs} pairs removed, {deleted} snapshots deleted, digest {receipt.digest[:12]}")
    free = "nobody knows when" if receipt.log_free_ms is None else when(receipt.log_free_ms)
    say(f"  Kafka has dropped the last copy: {free}")
    say(f"  {receipt.task} is served by {receipt.snapshot_id or 'none'}")
    if receipt.base is not None:
        warn(
            f"  base {receipt.base[:12]} is not purged: if `edgeseq base consolidate` made it, it keeps what "
            "it learnt of this task; change back to a base from before"
        )
    for fault in faults:
        warn(f"  {fault}")
