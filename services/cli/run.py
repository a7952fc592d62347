"""``edgeseq up``, ``demo``, ``doctor`` and ``status``: the instance itself."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .options import Common
from .output import emit, say, table

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
    pairs: Annotated[int | None, Parameter(help="Pairs a task; default: the demo's own.")] = None,
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Teach four real tasks one after the other, live, then keep serving."""
    from edgeseq_core.errors import ConfigError

    try:
        module = importlib.import_module("edgeseq_services.demo")
    except ModuleNotFoundError as error:
        if error.name != "edgeseq_services.demo":
            raise
        raise ConfigError("this installation has no demo; install a release that has one") from None
    done: int | None = module.run(
        directory=common.dir,
        kafka=common.kafka,
        redis=common.redis,
        pairs=pairs,
        as_json=common.as_json,
    )
    return done or 0


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
    columns = ("task", "waiting", "learnt", "buffer", "champion", "last gate verdict", "drift")
    table(columns, (_row(task) for task in tasks))


def _row(task: TaskOverview) -> tuple[str, ...]:
    waiting = str(task.waiting_corrections + task.waiting_bulk)
    if task.waiting_corrections:
        waiting += f" (corrections: {task.waiting_corrections})"
    champion = (task.champion or "none") + (" (pinned)" if task.pinned else "")
    drift = "unknown"
    if task.drift is not None:
        drift = "recent" if task.drift.get("flag") else "none"
    return (
        task.task,
        waiting,
        str(task.learnt),
        f"{sum(task.buffer_pairs.values())} pairs, {task.buffer_bytes / 1024:.0f} KiB",
        champion,
        f"{task.verdict or 'none'}: {'; '.join(task.reasons)}".removesuffix(": "),
        drift,
    )
