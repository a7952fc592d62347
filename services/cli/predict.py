"""``edgeseq predict``: ask for answers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .names import check_task
from .options import Common
from .output import emit, say

if TYPE_CHECKING:
    from edgeseq_core.client import Prediction


def predict(
    task: Annotated[
        str | None, Parameter(help="Name of the task; with --infer it is left out.")
    ] = None,
    /,
    *text: Annotated[str, Parameter(help="Sources; without any, --file is read.")],
    infer: Annotated[
        bool,
        Parameter(
            negative="",
            help="Let the task whose sources are nearest answer each; every argument is a source.",
        ),
    ] = False,
    file: Annotated[
        Path | None,
        Parameter(help="One source a line; - is standard input.", allow_leading_hyphen=True),
    ] = None,
    n_best: Annotated[int, Parameter(help="Answers a source, 1 to 8, best first.")] = 1,
    constrained: Annotated[
        bool,
        Parameter(negative="", help="Use only symbols that the task's targets have had."),
    ] = False,
    priority: Annotated[
        Literal["interactive", "normal", "bulk"], Parameter(help="Which queue to wait in.")
    ] = "interactive",
    timeout: Annotated[float, Parameter(help="Seconds to wait for a source's reply.")] = 10.0,
    common: Common = Common(),  # noqa: B008 - frozen
) -> int:
    """Answer sources; exits with 1 when one has an error instead of an answer."""
    from edgeseq_core.client import Options
    from edgeseq_core.errors import ConfigError

    if infer:
        task, text = None, text if task is None else (task, *text)
    elif task is None:
        raise ConfigError("name a TASK before the sources, or say --infer to leave it out")
    else:
        check_task(task, otherwise="to leave it out, say --infer")
    if bool(text) == (file is not None):
        raise ConfigError("give either sources or --file FILE, and not both")
    options = Options(
        task=task, n_best=n_best, constrained=constrained, priority=priority, timeout_s=timeout
    )
    failed = False
    with common.client() as client:
        for prediction in client.predict_each(_sources(text, file), options):
            failed |= prediction.error is not None
            if common.as_json:
                emit(as_json(prediction))
            else:
                _show(prediction)
    return int(failed)


def as_json(prediction: Prediction) -> dict[str, Any]:
    """One object a source."""
    error = prediction.error
    source = prediction.source
    shown: dict[str, Any] = {
        "source": source if isinstance(source, str) else source.model_dump(),
        "task": prediction.task,
        "task_confidence": prediction.task_confidence,
        "target": prediction.target,
        "confidence": prediction.confidence,
        "abstained": prediction.abstained,
        "snapshot_id": prediction.snapshot_id,
        "memory": prediction.memory and prediction.memory.model_dump(),
        "error": None if error is None else {"code": error.code, "message": str(error)},
        "request_id": prediction.request_id,
    }
    if len(prediction.hypotheses) > 1:
        shown["hypotheses"] = [
            {**h.model_dump(), "confidence": h.confidence} for h in prediction.hypotheses
        ]
    return shown


def _sources(text: tuple[str, ...], file: Path | None) -> Iterator[str]:
    if file is None:
        yield from text
    elif str(file) == "-":
        yield from _lines(sys.stdin.buffer)
    else:
        from .files import opened

        with opened(file) as lines:
            yield from _lines(lines)


def _lines(lines: Iterable[bytes]) -> Iterator[str]:
    """Lines as sources; bytes that are no UTF-8 become U+FFFD, empty lines are skipped."""
    for line in lines:
        if source := line.decode(errors="replace").rstrip("\r\n"):
            yield source


def _show(prediction: Prediction) -> None:
    source = (f"{prediction.source}", "dim")
    if prediction.error is not None:
        say(source, " → ", (str(prediction.error), "red"))
        return
    of_task = prediction.task_confidence
    inferred = "" if of_task is None else f"  task {prediction.task} {of_task:.0%}"
    told = prediction.memory
    memory = "" if told is None else f"  memory of {told.producer} {told.pair_id}"
    made_by = (f"{_sure(prediction.confidence)}{memory}  {prediction.snapshot_id}{inferred}", "dim")
    if prediction.abstained:
        say(source, " → ", ("abstains", "yellow"), made_by)
        return
    say(source, " → ", (prediction.target or "", "bold green"), made_by)
    for hypothesis in prediction.hypotheses[1:]:
        say(
            " " * len(str(prediction.source)),
            "   ",
            hypothesis.target,
            (_sure(hypothesis.confidence), "dim"),
        )


def _sure(confidence: float | None) -> str:
    return "" if confidence is None else f"  {confidence:.0%}"
