"""``edgeseq learn``: the learner over a file, in one process, without servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .options import Format, Task
from .output import emit, say, warn

if TYPE_CHECKING:
    from edgeseq_core.learn.offline import OfflineProgress

Pair = tuple[str, str]


def learn(
    task: Task,
    file: Annotated[
        Path,
        Parameter(
            help="Lines of source TAB target, or JSON objects; - is standard input.",
            allow_leading_hyphen=True,
        ),
    ],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Write the champion's snapshot here.")] = None,
    base: Annotated[
        Path | None, Parameter(help="Base to learn on; default: the shipped one.")
    ] = None,
    limit: Annotated[int | None, Parameter(help="Learn at most so many pairs.")] = None,
    evaluate_every: Annotated[int, Parameter(help="Pairs between held-out scores.")] = 500,
    seed: Annotated[int, Parameter(help="Decides every random draw.")] = 1,
    common: Format = Format(),  # noqa: B008 - frozen
) -> int:
    """Learn a file of pairs with the online learner.

    A tenth of the sources, chosen by their digest, is held out, never learnt, and scored. The settings of
    learning are those of the service: `EDGESEQ_LEARNING__REPLAY=loss edgeseq learn ...`.
    """
    from .extras import learner_extra
    from .files import opened, require_writable

    if out is not None:
        require_writable(out)
    with learner_extra():
        from edgeseq_core.learn.offline import OfflineLearner, learn_pairs
        from edgeseq_core.model.base import Base
        from edgeseq_core.settings import load_settings
    from edgeseq_core.client.pair_files import MalformedLine, read_pairs

    def note(line: MalformedLine) -> None:
        warn(f"line {line.line} left out: {line.reason}")

    with opened(file) as lines:
        texts = ((e.source, e.target) for e in read_pairs(lines, on_malformed=note))
        pairs = list(islice(((s, t) for s, t in texts if isinstance(s, str)), limit))
    learner = OfflineLearner(Base.load(base), load_settings(learning={"seed": seed}).learning)
    fitting = [pair for pair in pairs if learner.fits(pair)]
    if left_out := len(pairs) - len(fitting):
        warn(f"{left_out} pairs left out: longer than the base reads")
    train, held_out = split(fitting)
    if not train:
        warn(f"{file} holds no pair to learn")
        return 1
    progress = learn_pairs(learner, task, train, held_out=held_out, evaluate_every=evaluate_every)
    _print(progress, len(train), len(held_out), as_json=common.as_json)
    if out is not None:
        payload = learner.payload(task)
        if payload is None:
            warn("no snapshot passed the gate, so none was written")
            return 1
        out.write_bytes(payload)
        if not common.as_json:
            say(f"wrote {out} ({len(payload)} bytes)")
    return 0


def split(pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn, and those that the one held-out rule keeps for scoring."""
    from edgeseq_core.corpus.held_out import is_held_out

    held_out = [pair for pair in pairs if is_held_out(pair[0])]
    return [pair for pair in pairs if not is_held_out(pair[0])], held_out


def _print(
    progress: Iterator[OfflineProgress], train: int, held_out: int, *, as_json: bool
) -> None:
    if as_json:
        for one in progress:
            emit(_as_json(one))
    elif sys.stdout.isatty():
        _print_live(progress, train, held_out)
    else:
        last: OfflineProgress | None = None
        for last in progress:
            if last.held_out_accuracy is not None:
                say(_sentence(last))
        if last is not None and not held_out:  # a few pairs, none of which the rule holds out
            say(_sentence(last))


def _print_live(progress: Iterator[OfflineProgress], train: int, held_out: int) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def shown(one: OfflineProgress, accuracy: float | None) -> Table:
        table = Table("pairs", "prequential accuracy", "loss", "held-out accuracy", "snapshot")
        table.add_row(
            f"{one.pairs} of {train}",
            f"{one.prequential_accuracy:.1%}",
            f"{one.prequential_loss:.3f}",
            "–" if accuracy is None else f"{accuracy:.1%} of {held_out}",
            one.snapshot_id or "none yet",
        )
        return table

    accuracy: float | None = None
    with Live(console=Console(), refresh_per_second=4) as live:
        for one in progress:
            if one.held_out_accuracy is not None:
                accuracy = one.held_out_accuracy
                live.console.print(_sentence(one), highlight=False, markup=False)
            live.update(shown(one, accuracy))


def _sentence(one: OfflineProgress) -> str:
    held_out = "" if one.held_out_accuracy is None else f"held-out {one.held_out_accuracy:.1%}  "
    return (
        f"{one.pairs} pairs  {held_out}prequential {one.prequential_accuracy:.1%}  "
        f"loss {one.prequential_loss:.3f}  {one.snapshot_id or 'no snapshot yet'}"
    )


def _as_json(one: OfflineProgress) -> dict[str, Any]:
    return {
        "pairs": one.pairs,
        "prequential_accuracy": one.prequential_accuracy,
        "prequential_loss": one.prequential_loss,
        "held_out_accuracy": one.held_out_accuracy,
        "snapshot_id": one.snapshot_id,
    }
