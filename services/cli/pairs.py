"""``edgeseq teach``, ``correct``, ``pair`` and ``dlq``: pairs in, what became of them, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from .options import OPERATE, Common, Task
from .output import emit, say, table, warn, when

if TYPE_CHECKING:
    from edgeseq_core.client.pair_files import MalformedLine

MALFORMED_LISTED = 100  # in the report; all are counted

dlq = App(name="dlq", help="Dead letters: records that could not be used.", group=OPERATE)


def teach(
    task: Task,
    file: Annotated[
        Path,
        Parameter(
            help="Lines of source TAB target, or JSON objects with source and target; - is stdin.",
            allow_leading_hyphen=True,
        ),
    ],
    /,
    *,
    producer: Annotated[str, Parameter(help="Producer id of the pairs.")] = "edgeseq-cli",
    id_prefix: Annotated[
        str | None,
        Parameter(help="Name pairs PREFIX:LINE, so that the same file sent again is known."),
    ] = None,
    strict: Annotated[
        bool, Parameter(negative="", help="Stop at the first line that is no pair.")
    ] = False,
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Stream labelled pairs and wait until the broker has them all."""
    from edgeseq_core.client.pair_files import read_pairs
    from edgeseq_core.errors import InputError

    from .files import count_lines, opened

    malformed: list[MalformedLine] = []

    def note(line: MalformedLine) -> None:
        if strict:
            raise InputError(f"{file}, line {line.line}: {line.reason}; nothing after it was sent")
        malformed.append(line)
        if not common.as_json and len(malformed) <= MALFORMED_LISTED:
            warn(f"line {line.line} left out: {line.reason}")

    total = count_lines(file)
    with (
        opened(file) as lines,
        common.client(producer) as client,
        _progress(total, shown=not common.as_json) as on_progress,
    ):
        pairs = read_pairs(lines, on_malformed=note, id_prefix=id_prefix)
        done = client.teach(task, pairs, on_progress=on_progress)
    rate = done.count / done.seconds if done.seconds else 0.0
    if common.as_json:
        emit(
            {
                "task": task,
                "producer": done.producer,
                "count": done.count,
                "seconds": round(done.seconds, 3),
                "pairs_per_s": round(rate, 1),
                "first_pair_id": done.pair_ids[0] if done.count else None,
                "last_pair_id": done.pair_ids[-1] if done.count else None,
                "malformed_count": len(malformed),
                "malformed": [
                    {"line": m.line, "reason": m.reason} for m in malformed[:MALFORMED_LISTED]
                ],
            }
        )
    else:
        say((f"{done.count} pairs", "bold"), f" sent in {done.seconds:.1f} s ({rate:.0f} pairs/s)")
        if done.count:
            last = f"edgeseq pair {task} {done.producer} {done.pair_ids[-1]}"
            say((f"what became of the last: {last}", "dim"))
        if malformed:
            warn(f"lines left out because they are no pairs: {len(malformed)}")
    return 0 if done.count else 1


def correct(
    task: Task,
    source: Annotated[str, Parameter(help="What was asked.")],
    target: Annotated[str, Parameter(help="The right answer.")],
    /,
    *,
    request_id: Annotated[
        str | None, Parameter(help="The request whose reply it corrects.")
    ] = None,
    producer: Annotated[str, Parameter(help="Producer id of the correction.")] = "edgeseq-cli",
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """Give the right answer to a source; it is learnt ahead of other pairs."""
    with common.client(producer) as client:
        pair_id = client.correct(task, source, target, request_id=request_id)
    if common.as_json:
        emit({"task": task, "producer": producer, "pair_id": pair_id})
    else:
        say("correction sent; ", (f"edgeseq pair {task} {producer} {pair_id}", "dim"))


def pair(
    task: Task,
    producer: Annotated[str, Parameter(help="Who sent the pair.")],
    pair_id: Annotated[str, Parameter(help="The producer's id of the pair.")],
    /,
    *,
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Tell what became of a pair; exits with 1 when it is unknown."""
    with common.client() as client:
        status = client.pair_status(task, producer, pair_id)
    if common.as_json:
        emit(status.model_dump(exclude={"kind", "schema_version", "request_id"}))
    else:
        say((status.state, "bold"), f" {status.detail}".rstrip())
        if status.step:
            serves = "the champion has learnt it" if status.in_champion else "not in the champion"
            first = status.snapshot_id or "none yet"
            say(f"trained at step {status.step}; first promoted snapshot: {first}; {serves}")
    return int(status.state == "unknown")


@dlq.command(name="list")
def list_letters(
    *,
    all_letters: Annotated[
        bool, Parameter(name="--all", negative="", help="Those already redriven, too.")
    ] = False,
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """List dead letters, oldest first."""
    from edgeseq_core.streams.dead_letters import list_dead_letters

    letters = list_dead_letters(common.settings().kafka, all_letters=all_letters)
    if common.as_json:
        for letter in letters:
            emit({"name": letter.name, **letter.model_dump()})
        return
    columns = ("name", "reason", "origin", "attempts", "bytes", "first seen", "detail")
    table(
        columns,
        (
            (
                letter.name,
                letter.reason,
                f"{letter.origin_topic}/{letter.origin_partition}/{letter.origin_offset}",
                str(letter.attempts),
                str(letter.size_bytes),
                when(letter.first_seen_ms),
                letter.detail,
            )
            for letter in letters
        ),
        title=f"dead letters: {len(letters)}",
    )


@dlq.command
def redrive(
    *names: Annotated[str, Parameter(help="Dead letters by name; without any, all open ones.")],
    reason: Annotated[str | None, Parameter(help="Only those with this reason.")] = None,
    common: Common = Common(),  # noqa: B008 - frozen
) -> None:
    """Send dead letters to their topics again."""
    from edgeseq_core.streams.dead_letters import redrive as redrive_letters

    sent = redrive_letters(
        common.settings().kafka,
        names=names,
        wanted=lambda letter: reason is None or letter.reason == reason,
    )
    if common.as_json:
        emit({"count": len(sent), "names": [letter.name for letter in sent]})
    else:
        say((f"{len(sent)} records", "bold"), " sent again")


@contextmanager
def _progress(total: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal: pairs, pairs/s, time left; elsewhere nothing."""
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    speed = TextColumn("{task.fields[rate]} pairs/s")
    columns = (TextColumn("pairs"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("teach", total=total, rate="–")

        def show(acknowledged: int) -> None:
            elapsed = progress.tasks[bar].elapsed or 0.0
            rate = f"{acknowledged / elapsed:.0f}" if elapsed else "–"
            progress.update(bar, completed=acknowledged, rate=rate)

        yield show
