"""``edgeseq bench`` and ``edgeseq report``: methods side by side on real streams, and engines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from .options import RESEARCH, Format
from .output import emit, say, table

if TYPE_CHECKING:
    from edgeseq_core.evaluate.engines.table import Row

AT_LEAST_ONE = Parameter(validator=Number(gte=1))

app = App(name="bench", help="Methods side by side on real streams, and engines.", group=RESEARCH)


@Parameter(name="*")
@dataclass(frozen=True)
class Data:
    """Where data lies that no package has."""

    data: Annotated[
        Path,
        Parameter(
            env_var="EDGESEQ_DATA", help="Folder of data that no package has, see `bench fetch`."
        ),
    ] = Path("data")


@Parameter(name="*")
@dataclass(frozen=True)
class Means(Data):
    """What is learnt on, and how fast."""

    base: Annotated[Path | None, Parameter(help="Base to learn on; default: the shipped one.")] = (
        None
    )
    workers: Annotated[
        int, AT_LEAST_ONE, Parameter(help="Cells that run at once, one thread each.")
    ] = 1


@Parameter(name="*")
@dataclass(frozen=True)
class Amount:
    """How much is learnt and asked."""

    pairs: Annotated[int, AT_LEAST_ONE, Parameter(help="Pairs to learn, a task.")] = 5_000
    questions: Annotated[int, AT_LEAST_ONE, Parameter(help="Held-out questions, a phase.")] = 200
    tasks: Annotated[
        int, AT_LEAST_ONE, Parameter(help="Tasks of the stream of tasks, the first ones.")
    ] = 8
    seeds: Annotated[int, AT_LEAST_ONE, Parameter(help="Seeds 1 to this.")] = 3
    task_bytes: Annotated[
        int, Parameter(help="Bytes a task that a method may keep beside the base.")
    ] = 192 << 10


@app.command
def learning(
    *,
    out: Annotated[Path, Parameter(help="Folder of finished cells; a second run goes on in it.")],
    stream: Annotated[
        tuple[str, ...], Parameter(help="Stream to learn; default: all.", negative=())
    ] = (),
    method: Annotated[
        tuple[str, ...],
        Parameter(help="Method to try; default: all but edgeseq-NAME.", negative=()),
    ] = (),
    amount: Amount = Amount(),
    short: Annotated[
        bool, Parameter(negative="", help="Three small tasks, three methods: about a minute.")
    ] = False,
    means: Means = Means(),
    common: Format = Format(),  # noqa: B008 - frozen
) -> None:
    """Let the learner and the baselines learn the same streams, and measure them.

    Every pair is answered before it is learnt. A finished cell (method, stream, seed) is kept in the
    folder and never run again. Look at it with `edgeseq report`.
    """
    from .extras import learner_extra

    with learner_extra():
        from edgeseq_core.evaluate.bench_folder import STREAMS, BenchFolder
        from edgeseq_core.evaluate.methods.registry import METHODS, VARIANTS

        from ..bench import Plan, run_bench, short_plan
    chosen = Plan(
        streams=_known(stream, STREAMS, "--stream"),
        methods=_known(method, METHODS, "--method")
        if method
        else [name for name in METHODS if name not in VARIANTS],
        seeds=range(1, amount.seeds + 1),
        pairs=amount.pairs,
        questions=amount.questions,
        tasks=amount.tasks,
        task_bytes=amount.task_bytes,
        base=means.base,
        data=means.data,
    )
    plan = short_plan(chosen) if short else chosen
    for event in run_bench(plan, BenchFolder(out), means.workers):
        if common.as_json:
            cell = event.key._asdict() if event.key else None
            emit({"cell": cell, "event": event.kind, "said": event.said})
        else:
            what = (str(event.key), "bold") if event.key else ""
            say(what, ": " if event.key else "", f"{event.kind} {event.said}")


@app.command
def engine(
    *,
    out: Annotated[Path, Parameter(help="Folder that engine.csv and engine.png go into.")],
    rounds: Annotated[int, AT_LEAST_ONE, Parameter(help="Turns of each engine.")] = 11,
    seconds: Annotated[float, Parameter(help="Of a turn, at least.")] = 0.15,
    short: Annotated[
        bool, Parameter(negative="", help="Two cells, three short rounds: about a minute.")
    ] = False,
    common: Format = Format(),  # noqa: B008 - frozen
) -> None:
    """Measure the native engine against PyTorch, and CTranslate2 and ONNX Runtime where installed.

    Batches from 16 tokens to 16; each engine is a process of its own, one at work at a time. The table
    tells how often the answers are those of PyTorch in fp32, and how far the floor of the products is.
    """
    from .extras import learner_extra

    with learner_extra():
        from ..engine_bench import SHORT_PLAN, EnginePlan, run_engine_bench
    plan = SHORT_PLAN if short else EnginePlan(rounds=rounds, seconds=seconds)
    for found in run_engine_bench(plan, out):
        if common.as_json:
            emit({"rows": [asdict(row) for row in found.rows], "left_out": found.left_out})
        elif found.left_out:
            say(f"left out: {found.left_out}")
        else:
            table(ENGINE_COLUMNS, map(_engine_row, found.rows), title=found.rows[0].cell)
    if not common.as_json:
        say(f"wrote {out / 'engine.csv'}, {out / 'engine.png'}")


ENGINE_COLUMNS = ("ms", "native", "floor", "others", "answers as fp32", "engine")


def _engine_row(row: Row) -> tuple[str, ...]:
    return (
        f"{row.ms:.3g}",
        f"{row.native_is_faster:.2f} x",
        f"{row.times_the_floor:.1f} x",
        f"{row.cores_of_others:.1f} cores",
        row.answers_like_fp32,
        f"{row.engine}{', calibrated' if row.calibrated else ''} {row.version}",
    )


@app.command
def fetch(*, where: Data = Data()) -> None:
    """Download what no Python package has: Debian's message catalogues, old releases of codespell."""
    from ..bench_data import fetch as fetch_all

    for said in fetch_all(where.data):
        say(said)


def report(
    folder: Annotated[Path, Parameter(help="The folder of `edgeseq bench learning`.")],
    /,
    *,
    common: Format = Format(),  # noqa: B008 - frozen
) -> None:
    """Write what a bench found as one HTML page and as CSV tables, into its folder."""
    from .extras import learner_extra

    with learner_extra():
        from edgeseq_core.evaluate.bench_folder import BenchFolder
    from edgeseq_core.evaluate.report import write_report

    files = write_report(BenchFolder(folder))
    if common.as_json:
        emit({"files": [str(file) for file in files]})
    else:
        for file in files:
            say(f"wrote {file}")


def _known(named: tuple[str, ...], known: Iterable[str], option: str) -> tuple[str, ...]:
    """The names that were given, all of them where none was; raises ConfigError for an unknown one."""
    from edgeseq_core.errors import ConfigError

    names = tuple(known)
    for name in named:
        if name not in names:
            raise ConfigError(f"{option} {name} is unknown: choose of {', '.join(names)}")
    return named or names
