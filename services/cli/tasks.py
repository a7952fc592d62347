"""``edgeseq tasks``: which tasks there are, and their settings."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from .options import OPERATE, Common, Task
from .output import emit, say, table

app = App(name="tasks", help="Tasks and their settings.", group=OPERATE)


@app.command(name="list")
def list_tasks(*, common: Common = Common()) -> None:  # noqa: B008 - frozen
    """List tasks with their settings."""
    from .store import open_store

    with open_store(common.settings()) as store:
        found = {
            task: asdict(settings)
            for partition in range(store.partitions)
            for task, settings in store.buffer.tasks(partition).items()
        }
    names = sorted(found)
    if common.as_json:
        for name in names:
            emit({"task": name, **found[name]})
        return
    columns = ("abstain_below", "reservoir_bytes", "fresh_quota", "memory")
    table(("task", *columns), ((n, *(_shown(found[n][c]) for c in columns)) for n in names))


def _shown(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


@app.command(name="set")
def set_task(
    task: Task,
    /,
    *,
    abstain_below: Annotated[
        float | None, Parameter(help="Confidence under which a reply abstains, 0 to 1.")
    ] = None,
    reservoir_bytes: Annotated[
        int | None, Parameter(help="Byte budget of what is kept of all that was learnt.")
    ] = None,
    fresh_quota: Annotated[
        int | None, Parameter(help="Waiting pairs above which new ones are shed; 0 is never.")
    ] = None,
    memory: Annotated[
        Literal["on", "off"] | None,
        Parameter(help="Answer a source at once with what it was last corrected to; off forgets."),
    ] = None,
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """Register a task, or change its settings; what is not named stays."""
    from edgeseq_core.errors import ConfigError
    from edgeseq_core.keys import partition_of
    from edgeseq_core.replay.buffer import TaskSettings

    from .names import check_task
    from .store import open_store

    check_task(task)
    if abstain_below is not None and not 0 <= abstain_below <= 1:
        raise ConfigError(f"--abstain-below is {abstain_below}; it lies between 0 and 1")
    if (reservoir_bytes or 0) < 0 or (fresh_quota or 0) < 0:
        raise ConfigError("--reservoir-bytes and --fresh-quota are not negative")
    given = {
        "abstain_below": abstain_below,
        "reservoir_bytes": reservoir_bytes,
        "fresh_quota": fresh_quota,
        "memory": None if memory is None else memory == "on",
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with open_store(common.settings()) as store:
        present = store.buffer.tasks(partition_of(task, store.partitions))
        settings = replace(present.get(task, TaskSettings()), **changes)
        store.buffer.set_task(task, settings)
    if common.as_json:
        emit({"task": task, **asdict(settings)})
    else:
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in asdict(settings).items())
        say((task, "bold"), ": ", shown)


@app.command(name="relearn")
def relearn_task(
    task: Task,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; recorded in the journal.")] = "",
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """Let a task learn anew what its buffer holds; its champion serves on meanwhile."""
    from edgeseq_core.clock import SystemClock
    from edgeseq_core.errors import ConfigError
    from edgeseq_core.keys import partition_of
    from edgeseq_core.learn.relearn import relearn

    from .names import check_task
    from .store import open_store

    check_task(task)
    with open_store(common.settings()) as store:
        if task not in store.buffer.tasks(partition_of(task, store.partitions)):
            raise ConfigError(f"task {task} is not registered; `edgeseq tasks list` names them")
        relearn(store.registry, task, clock=SystemClock(), reason=reason)
        status = store.registry.status(task)
    if common.as_json:
        emit({"task": task, "champion": status.champion, "branch": status.branch})
    else:
        say(
            (task, "bold"),
            " is learnt anew; ",
            ("edgeseq status", "bold"),
            " tells when it is done",
        )
