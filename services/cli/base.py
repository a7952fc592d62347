"""``edgeseq base``: which base an instance learns on, and what it learns of its tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from .extras import learner_extra
from .options import OPERATE, Common
from .output import emit, say, table

if TYPE_CHECKING:
    from edgeseq_core.learn.change_base import TaskChange
    from edgeseq_core.learn.consolidate import Outcome

app = App(name="base", help="The base that all tasks are learnt on.", group=OPERATE)


@app.command
def change(
    file: Annotated[Path | None, Parameter(help="The new base (default: the shipped one).")] = None,
    /,
    *,
    former: Annotated[
        Path | None, Parameter(help="The former base (default: base.path, else the shipped one).")
    ] = None,
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """Re-encode all stored pairs for another base, and let every task learn them anew on it.

    Consumer and learner must be stopped; start them with the new base afterwards.  What was
    interrupted goes on when it is called again.
    """
    from edgeseq_core.settings import load_settings

    from ..base_change import change_stored_base

    flags: dict[str, dict[str, object]] = {"redis": {"url": common.redis}} if common.redis else {}
    settings = load_settings(**flags)
    changes = change_stored_base(
        file, former or settings.base.path, settings=settings, directory=common.dir
    )
    for one in changes:
        _show(one, as_json=common.as_json)
    if not common.as_json:
        path = f"EDGESEQ_BASE__PATH={file}" if file else "the shipped base (no base.path)"
        say(f"start consumer and learner with {path}, predictors last")


@app.command
def consolidate(
    file: Annotated[Path, Parameter(help="Where the new base is written; must not be there.")],
    /,
    *,
    cpu_s: Annotated[float, Parameter(help="CPU-seconds of training.")] = 300.0,
    grow: Annotated[
        int | None,
        Parameter(
            help="Widen the encoder's FFNs to so many hidden units first; nothing changes by it."
        ),
    ] = None,
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """Train the base (base.path, else the shipped one) on what all tasks keep for replay, and change to it.

    Only if no task falls by more than 0.5 points on the pairs that it holds out, the mean rises and the mean
    loss does not; else nothing is changed.  Consumer and learner must be stopped; start them with the new
    base afterwards.  The way back is `edgeseq base change`.
    """
    from edgeseq_core.errors import ConfigError, SnapshotError
    from edgeseq_core.settings import load_settings

    if cpu_s <= 0:
        raise ConfigError(f"--cpu-s is {cpu_s:g}; give at least a few seconds")
    with learner_extra():
        from edgeseq_core.learn.consolidate import Outcome
        from edgeseq_core.learn.consolidation import ConsolidationSettings

        from ..base_consolidation import consolidate_stored_base
    flags: dict[str, dict[str, object]] = {"redis": {"url": common.redis}} if common.redis else {}
    settings = load_settings(**flags)
    run = ConsolidationSettings(cpu_s=cpu_s, encoder_ffn=grow)
    for one in consolidate_stored_base(file, run=run, settings=settings, directory=common.dir):
        if not isinstance(one, Outcome):
            _show(one, as_json=common.as_json)
            continue
        _judged(one, as_json=common.as_json)
        if one.made is None:
            raise SnapshotError(
                f"not published, and nothing was changed: {'; '.join(one.trials[-1].refused)}"
            )
    if not common.as_json:
        say(f"start consumer and learner with EDGESEQ_BASE__PATH={file}, predictors last")


def _judged(outcome: Outcome, *, as_json: bool) -> None:
    """What every task makes of the new base."""
    trials = outcome.trials
    if as_json:
        judged = [asdict(trial) for trial in trials]
        emit({"published": outcome.made is not None, "steps": outcome.steps, "trials": judged})
        return
    columns = ["learnt from", "held out", "champion"]
    columns += [f"{100 * trial.share:.0f} % of the way" for trial in trials]
    rows = []
    for at, score in enumerate(trials[0].scores):
        right = [score.before, *(trial.scores[at].after for trial in trials)]
        counts = [str(score.learnt_from), str(score.held_out)]
        rows.append([*counts, *(f"{one:.1f} %" for one in right), score.task])
    table([*columns, "task"], rows, title="exact answers to the pairs held out")
    for trial in trials:
        for reason in trial.refused:
            say(f"{100 * trial.share:.0f} % of the way: {reason}")


def _show(change: TaskChange, *, as_json: bool) -> None:
    """What became of a task."""
    if as_json:
        emit(asdict(change))
        return
    next_ = "is learnt anew" if change.relearns else "has nothing to learn anew"
    if change.snapshot_id:
        next_ = f"is served by {change.snapshot_id}"
    say((change.task, "bold"), f": {change.rewritten} pairs re-encoded; it {next_}")
    for count, what in (
        (change.too_long, "too long for the new base, in quarantine"),
        (change.let_out, "out of the quarantine, to be learnt"),
        (change.evicted, "out of the reservoir: its budget holds fewer of the longer records"),
    ):
        if count:
            say(f"  {count} pairs {what}")
