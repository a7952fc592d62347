"""The board for people: a live screen on a terminal, a line elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .board import Board, Phase, Shown
from .story import Unchanged

WIDE = 118  # columns; below, the table leaves out what the line under it says
GAIN = 0.30  # above both floors: shown green
LEGEND = (
    "  preq.: right before it was learnt; held-out: right, of sources never taught;\n"
    "  pair 0: the bare base; copy, suffix: copying the source, rules of suffixes"
)
STATUS_STYLE = {
    "preparing": "dim",
    "waiting": "dim",
    "learning": "bold cyan",
    "settling": "cyan",
    "done": "green",
}


def percent(share: float | None) -> str:
    """A share for people.

    >>> percent(0.284), percent(1.0), percent(None)
    ('28%', '100%', '–')
    """
    return "–" if share is None else f"{share:.0%}"


def seconds(value: float | None) -> str:
    """A short time for people.

    >>> seconds(0.0384), seconds(1.26), seconds(None)
    ('38 ms', '1.3 s', '–')
    """
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def clock(elapsed_s: float) -> str:
    """Minutes and seconds.

    >>> clock(0), clock(754.9)
    ('0:00', '12:34')
    """
    return f"{int(elapsed_s) // 60}:{int(elapsed_s) % 60:02d}"


def short_id(phase: Phase) -> str:
    """A snapshot id without its task, and six digits of its digest."""
    if phase.snapshot_id is None:
        return "–"
    step, _, digest = phase.snapshot_id.removeprefix(f"{phase.task}-").partition("-")
    return f"{step}-{digest[:6]}"


def screen(board: Board, *, width: int) -> RenderableType:
    """The whole live view."""
    with board.lock:
        parts: list[RenderableType] = [_head(board), _phases(board, wide=width >= WIDE)]
        parts.append(Text(LEGEND, "dim"))
        if board.active is not None and (width < WIDE or board.active.at_start is not None):
            parts.append(Text(_gate(board.active), "dim"))
        parts.append(_measures(board))
        if board.active is not None and board.active.examples:
            parts.append(_examples(board.active))
        parts += [Text(f"! {notice}", "yellow") for notice in board.recent_notices()]
        if board.doing != "done":
            parts.append(Text("Ctrl-C stops everything", "dim"))
    return Group(*parts)


def line(board: Board) -> str:
    """The board in one line, for a log."""
    with board.lock:
        parts = [clock(board.elapsed_s), board.doing]
        phase = board.active
        if phase is not None:
            parts += [
                f"{phase.learnt} of {phase.total} pairs learnt",
                f"prequential {percent(phase.prequential)}",
                f"held-out {percent(phase.held_out)} (pair 0 {percent(phase.at_pair_0)}, copying "
                f"{percent(phase.copying)}, suffix rules {percent(phase.suffix_rules)})",
                f"freshness p50 {seconds(board.freshness.percentile(0.5))}",
                f"reply p50 {seconds(board.latency.percentile(0.5))}",
                phase.snapshot_id or "no snapshot yet",
            ]
            if phase.drifts:
                parts.append(f"{phase.drifts} drift")
        return "  ".join(parts)


def _head(board: Board) -> Text:
    text = Text.assemble(("EdgeSeq ", "bold"), clock(board.elapsed_s), "  ", (board.doing, "cyan"))
    if board.first_right is not None:
        first = board.first_right
        text.append(
            f"\nfirst held-out source right that was wrong at pair 0, at {clock(first.elapsed_s)}: "
            f"{first.source} → {first.answer}",
            "green",
        )
    elif board.ready_s is not None:
        text.append("\nno held-out source right yet that was wrong at pair 0", "dim")
    return text


def _phases(board: Board, *, wide: bool) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("task", no_wrap=True)
    for name in ("pairs", "preq.", "held-out", "pair 0", "copy", "suffix"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("drift", no_wrap=True)
    if wide:
        table.add_column("promoted, held", no_wrap=True)
        table.add_column("snapshot", no_wrap=True)
    for phase in board.phases:
        row = [
            Text(phase.name, STATUS_STYLE[phase.status]),
            Text(f"{phase.learnt}/{phase.total}"),
            Text(percent(phase.prequential)),
            Text(percent(phase.held_out), _style(phase)),
            Text(percent(phase.at_pair_0), "dim"),
            Text(percent(phase.copying), "dim"),
            Text(percent(phase.suffix_rules), "dim"),
            Text(_drift(phase), "bold yellow" if phase.drift_flag else ""),
        ]
        if wide:
            tried = phase.promoted or phase.held
            row.append(Text(f"{phase.promoted}, {phase.held}" if tried else "–"))
            row.append(Text(short_id(phase), "dim"))
        table.add_row(*row)
    return table


def _style(phase: Phase) -> str:
    floors = [share for share in (phase.at_pair_0, phase.copying) if share is not None]
    if phase.held_out is None or not floors:
        return ""
    return "bold green" if phase.held_out >= max(floors) + GAIN else "bold"


def _drift(phase: Phase) -> str:
    flag = "⚑ " if phase.drift_flag else ""
    return f"{flag}{phase.drifts}" if phase.drifts else "–"


def _gate(phase: Phase) -> str:
    began = f"; the phase began at {percent(phase.at_start)}"
    return (
        f"  gate: {phase.promoted} promoted, {phase.held} held; snapshot {short_id(phase)}"
        f"{began if phase.at_start is not None else ''}"
    )


def _measures(board: Board) -> Text:
    freshness, latency = board.freshness, board.latency
    return Text.assemble(
        ("  freshness ", "dim"),
        f"p50 {seconds(freshness.percentile(0.5))}  p95 {seconds(freshness.percentile(0.95))}",
        ("   reply latency ", "dim"),
        f"p50 {seconds(latency.percentile(0.5))}  p99 {seconds(latency.percentile(0.99))}",
    )


def _examples(phase: Phase) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="dim")
    for name in ("  held-out source", "before", "answer now", "", "wanted"):
        table.add_column(name, no_wrap=True, max_width=30)
    for shown in phase.examples:
        mark, style = _mark(shown)
        table.add_row(
            Text(f"  {shown.source}"),
            Text(shown.first or "–", "dim"),
            Text(shown.now if shown.now is not None else "–", style),
            Text(mark, style),
            Text(shown.target, "dim"),
        )
    return table


def _mark(shown: Shown) -> tuple[str, str]:
    if shown.now is None:
        return "", "dim"
    return ("✓", "bold green") if shown.is_right else ("✗", "red")


def results(board: Board, unchanged: Sequence[Unchanged]) -> Table:
    """Accuracy at each phase's end and at the end of all, and whether bytes and answers are equal."""
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        title="Held-out accuracy",
        title_justify="left",
        padding=(0, 1),
    )
    table.add_column("task", no_wrap=True)
    for name in ("pair 0", "copy", "suffix", "end of phase", "end of all"):
        table.add_column(name, justify="right")
    table.add_column("since its phase", no_wrap=True)
    for phase, compared in zip(board.phases, unchanged, strict=True):
        table.add_row(
            phase.name,
            percent(phase.at_pair_0),
            percent(phase.copying),
            percent(phase.suffix_rules),
            Text(percent(phase.at_end), _style(phase)),
            percent(phase.final),
            _verdict(compared),
        )
    return table


def _verdict(compared: Unchanged) -> Text:
    if compared.same_bytes and compared.same_answers:
        return Text("bytes, answers equal", "green")
    if compared.later_pairs:
        return Text("taught again (flip)", "yellow")
    if compared.same_bytes:
        return Text("ANSWERS DIFFER", "bold red")
    return Text("BYTES DIFFER", "bold red")


def commands(program: str, where: str, board: Board) -> list[tuple[str, str]]:
    """What to try in a second terminal: commands, and what each does."""
    phase = board.phases[0]
    shown = phase.examples[0] if phase.examples else Shown("4 May 2026", "2026-05-04", None)
    tries = [
        (f'predict {phase.task} "{shown.source}"', "ask"),
        (f'correct {phase.task} "{shown.source}" "{shown.target}"', "learnt at once"),
        ("teach mine pairs.tsv", "your own: source TAB target"),
        ("status", "every task"),
        (f"snapshots {phase.task}", "the gate's verdicts"),
        (f"rollback {phase.task}", "and pin"),
        (f"unpin {phase.task}", "the gate decides again"),
    ]
    return [(f"{program} {what} --dir {where}", why) for what, why in tries]


def console() -> Console:
    """Where people read."""
    return Console(highlight=False)
