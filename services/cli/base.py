"""``edgeseq base``: which base an instance learns on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from .options import OPERATE, Common
from .output import emit, say

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
        if common.as_json:
            emit(asdict(one))
            continue
        next_ = "is learnt anew" if one.relearns else "has nothing to learn anew"
        if one.snapshot_id:
            next_ = f"is served by {one.snapshot_id} again"
        say((one.task, "bold"), f": {one.rewritten} pairs re-encoded; it {next_}")
        for count, what in (
            (one.too_long, "too long for the new base, in quarantine"),
            (one.let_out, "out of the quarantine, to be learnt"),
            (one.evicted, "out of the reservoir: its budget holds fewer of the longer records"),
        ):
            if count:
                say(f"  {count} pairs {what}")
    if not common.as_json:
        path = f"EDGESEQ_BASE__PATH={file}" if file else "the shipped base (no base.path)"
        say(f"start consumer and learner with {path}, predictors last")
