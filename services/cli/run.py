"""``edgeseq up``, ``demo``, ``doctor`` and ``status``: the instance itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .options import Common
from .output import emit, percent, say, table

if TYPE_CHECKING:
    from .overview import TaskOverview

LEVEL_STYLE = {"ok": "green", "warning": "yellow", "error": "bold red"}


def up(*, common: Common = Common()) -> None:  # noqa: B008 - frozen
    """Start broker, store and services in --dir, and supervise them until Ctrl-C.

    With --kafka or --redis, servers that already run are used instead of embedded ones.
    """
    from ..up import stop_signals
    from ..up import up as start

    def event(sentence: str) -> None:
        if common.as_json:
            emit({"event": "notice", "message": sentence})
        else:
            say((sentence, "dim"))

    with (
        stop_signals(),
        start(common.dir, kafka=common.kafka, redis=common.redis, on_event=event) as instance,
    ):
        if common.as_json:
            directory = str(instance.directory)
            emit({"event": "ready", "dir": directory, **asdict(instance.endpoints)})
        else:
            where = "" if common.dir is None else f" --dir {common.dir}"
            say(("ready", "bold green"), f"; Kafka at {instance.endpoints.kafka}; Ctrl-C stops all")
            say("in another terminal:")
            say((f"  edgeseq teach TASK FILE{where}", "bold"))
            say((f"  edgeseq predict TASK TEXT{where}", "bold"))
            say((f"  edgeseq status{where}", "bold"))
        try:
            instance.wait()
        except KeyboardInterrupt:
            event("stopping; accepted work is finished first")


def demo(
    *,
    pairs: Annotated[int | None, Parameter(help="Pairs a task (default: 2000).")] = None,
    flip_pairs: Annotated[
        int | None,
        Parameter(help="Dates taught after their order has flipped (default: 1500); 0: no flip."),
    ] = None,
    rate: Annotated[float | None, Parameter(help="Pairs a second (default: 16).")] = None,
    tasks: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, negative="", help="Teach only these of the demo's tasks."),
    ] = (),
    keep: Annotated[
        bool, Parameter(negative="", help="Go on with the state that an earlier demo left.")
    ] = False,
    stop: Annotated[
        bool, Parameter(negative="", help="Stop when all is taught instead of serving on.")
    ] = False,
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Teach four real tasks one after the other, live, then keep serving until Ctrl-C.

    Its state folder is ./.edgeseq-demo unless --dir names another; it is begun afresh.
    """
    from ..demo import RATE, Order, run

    chosen: dict[str, Any] = {"pairs": pairs, "flip_pairs": flip_pairs, "tasks": tasks or None}
    order = Order(**{name: value for name, value in chosen.items() if value is not None})
    return run(
        directory=common.dir,
        kafka=common.kafka,
        redis=common.redis,
        order=order,
        rate=RATE if rate is None else rate,
        keep=keep,
        stop_when_done=stop,
        as_json=common.as_json,
    )


def doctor(*, common: Common = Common()) -> int:  # noqa: B008 - frozen
    """Check packages, broker, store and services; exits with 1 on an error."""
    from ..doctor import examine

    findings = examine(common.settings())
    for finding in findings:
        if common.as_json:
            emit(asdict(finding))
        else:
            say(
                (f"{finding.level:8}", LEVEL_STYLE[finding.level]),
                (f"{finding.check}  ", "bold"),
                finding.detail,
            )
    return int(any(finding.level == "error" for finding in findings))


def status(*, common: Common = Common()) -> None:  # noqa: B008 - frozen
    """Show every task: what waits, what serves, and what the gate last said."""
    from .overview import overview

    tasks = overview(common.settings())
    if common.as_json:
        emit({"tasks": [asdict(task) for task in tasks]})
        return
    columns = ("task", "waiting", "learnt", "buffer", "of base", "drift", "gate", "champion")
    table(columns, (_row(task) for task in tasks))


def _row(task: TaskOverview) -> tuple[str, ...]:
    waiting = str(task.waiting_corrections + task.waiting_bulk)
    if task.waiting_corrections:
        waiting += f" (corrections: {task.waiting_corrections})"
    champion = (task.champion or "none") + (" (pinned)" if task.pinned else "")
    drift = "unknown"
    if task.drift is not None:
        signals = [name.replace("_", " ") for name in task.drift.recent]
        told = ["recent"] * task.drift.flag + [f"changed: {', '.join(signals)}"] * bool(signals)
        drift = "; ".join(told) or "none"
    return (
        task.task,
        waiting,
        str(task.learnt),
        f"{task.buffer_bytes / 1024:.0f} KiB",
        percent(task.percent_of_base),
        drift,
        "learns anew" if task.relearning else task.verdict or "none",
        champion,
    )
