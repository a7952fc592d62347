"""``edgeseq pretrain`` and ``prune``: make a base, with a bar to watch and a folder to go on from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .options import Format
from .output import emit, say

if TYPE_CHECKING:
    from edgeseq_core.model.pretrain import PretrainReport


@Parameter(name="*")
@dataclass(frozen=True)
class Schedule:
    """How long a base is trained, and in which steps."""

    steps: Annotated[int, Parameter(help="Training steps.")] = 14_000
    batch: Annotated[int, Parameter(help="Pairs a step, on average.")] = 64
    learning_rate: Annotated[
        float | None,
        Parameter(help="Highest step size; default: 0.002 at width 128, less if wider."),
    ] = None
    warmup_steps: Annotated[int, Parameter(help="Steps in which the step size rises.")] = 400
    seed: Annotated[int, Parameter(help="Decides data order and initial weights.")] = 1


@Parameter(name="*")
@dataclass(frozen=True)
class Healing(Schedule):
    """The same for a base that has learnt before: fewer steps, and smaller ones."""

    steps: Annotated[int, Parameter(help="Training steps.")] = 2_000
    learning_rate: Annotated[float | None, Parameter(help="Highest step size.")] = 5e-4
    warmup_steps: Annotated[int, Parameter(help="Steps in which the step size rises.")] = 50


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """What a base is trained on."""

    threads: Annotated[int, Parameter(help="Threads that compute.")] = 1
    device: Annotated[
        Literal["cpu", "cuda"] | None, Parameter(help="Default: cuda where there is a GPU.")
    ] = None
    precision: Annotated[
        Literal["fp32", "bf16"] | None, Parameter(help="Default: bf16 on a GPU, fp32 on a CPU.")
    ] = None

    def settings(self) -> dict[str, Any]:
        """The same with what is there in place of defaults."""
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = self.precision or ("bf16" if device == "cuda" else "fp32")
        return {"threads": self.threads, "device": device, "precision": precision}


@Parameter(name="*")
@dataclass(frozen=True)
class Lessons:
    """Whom a base follows while it is trained."""

    teacher: Annotated[
        tuple[Path, ...],
        Parameter(help="A finished base to follow; several are an ensemble.", negative=()),
    ] = ()
    distill: Annotated[
        Literal["word", "sequence"],
        Parameter(help="Follow what teachers say of the labels, or their own answers."),
    ] = "word"
    lessons: Annotated[int, Parameter(help="Pairs a task that teachers speak of.")] = 10_000


def pretrain(
    out: Annotated[Path, Parameter(help="Where the base is written (safetensors).")],
    /,
    *,
    preset: Annotated[
        str, Parameter(help="Size of the model, by its width: 128, 256, 384, 512; or 256-8k.")
    ] = "128",
    output: Annotated[
        Literal["vocabulary", "copy"],
        Parameter(
            help="What answers are made of: the vocabulary, or copies of the source as well."
        ),
    ] = "vocabulary",
    subwords: Annotated[
        int | None,
        Parameter(
            help="Pieces of several characters beside characters; default: 0, 256-8k: 7,000."
        ),
    ] = None,
    schedule: Schedule = Schedule(),
    machine: Machine = Machine(),
    following: Lessons = Lessons(),
    common: Format = Format(),  # noqa: B008 - frozen
) -> None:
    """Make a base from the data of installed packages; it saw nothing that is held out.

    Checkpoint and curves are kept in a folder beside it (OUT with the suffix .run). The same command
    goes on where a killed one stopped, and makes the same bytes.
    """
    from .extras import learner_extra
    from .files import require_writable

    require_writable(out)
    with learner_extra():
        from edgeseq_core.model import pretrain as model
        from edgeseq_core.model.compress import DistillSettings, pretrain_taught
    from edgeseq_core.corpus import mixture

    settings = model.PretrainSettings(
        preset=preset, output=output, subwords=subwords, **vars(schedule), **machine.settings()
    )
    loaded = mixture.load(schedule.seed)
    if following.teacher:
        distilling = DistillSettings(level=following.distill, pairs=following.lessons)
        reports = pretrain_taught(
            following.teacher, loaded.train, loaded.dev, out, settings, distilling
        )
    else:
        reports = model.pretrain(loaded.train, loaded.dev, out, settings)
    _finish(out, show(reports, schedule.steps, as_json=common.as_json), common)


def prune(
    out: Annotated[Path, Parameter(help="Where the smaller base is written (safetensors).")],
    /,
    *,
    base: Annotated[Path | None, Parameter(help="Base to prune; default: the shipped one.")] = None,
    ffn_share: Annotated[float, Parameter(help="Share of the FFN columns that go.")] = 0.25,
    head_share: Annotated[float, Parameter(help="Share of the attention heads that go.")] = 0.0,
    layers: Annotated[int, Parameter(help="Encoder layers that go, from the top.")] = 0,
    schedule: Healing = Healing(),
    machine: Machine = Machine(),
    common: Format = Format(),  # noqa: B008 - frozen
) -> None:
    """Make a smaller base of one: its least important parts go, and the rest is trained to make up."""
    from .extras import learner_extra
    from .files import require_writable

    require_writable(out)
    with learner_extra():
        from edgeseq_core.model.base_file import read_header
        from edgeseq_core.model.compress import PruneSettings, pretrain_pruned
        from edgeseq_core.model.pretrain import PretrainSettings
    from edgeseq_core.corpus import mixture

    pruning = PruneSettings(ffn_share=ffn_share, head_share=head_share, layers=layers)
    pruning.check(read_header(base).config)  # before a minute of reading data
    settings = PretrainSettings(**vars(schedule), **machine.settings())
    loaded = mixture.load(schedule.seed)
    reports = pretrain_pruned(base, loaded.train, loaded.dev, out, settings, pruning)
    _finish(out, show(reports, schedule.steps, as_json=common.as_json), common)


def _finish(out: Path, seconds: float, common: Format) -> None:
    """Write the model card beside the base."""
    from edgeseq_core.model.base_file import read_header
    from edgeseq_core.model.card import model_card

    card = out.with_suffix(".md")
    card.write_text(model_card(read_header(out), out, seconds))
    if not common.as_json:
        say(f"wrote {out} and its model card {card}")


def show(reports: Iterable[PretrainReport], steps: int, *, as_json: bool) -> float:
    """Print a run as it goes, as JSON lines, a bar or lines; returns its seconds."""
    seconds = 0.0
    watched = reports if as_json or not sys.stdout.isatty() else _with_bar(reports, steps)
    for one in watched:
        seconds = one.seconds
        if as_json:
            emit({**one.row, "dev_exact": dict(one.dev_exact) if one.dev_exact else None})
            continue
        if watched is reports:
            say(f"step {one.step} of {steps}  {_scores(one)}  {one.seconds:.0f} s")
        for name, exact in (one.dev_exact or {}).items():
            say(f"  {name}: {exact:.1%} of dev right")
    return seconds


def _with_bar(reports: Iterable[PretrainReport], steps: int) -> Iterator[PretrainReport]:
    """The same reports, while a bar shows steps, scores, and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("steps"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with bar:
        task = bar.add_task("", total=steps)
        for one in reports:
            bar.update(task, completed=one.step, description=_scores(one))
            yield one


def _scores(one: PretrainReport) -> str:
    dev = "" if one.dev_accuracy is None else f"  dev {one.dev_accuracy:.1%}"
    return f"loss {one.loss:.3f}  tokens right {one.accuracy:.1%}{dev}"
