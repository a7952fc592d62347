"""The curves of a training run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from edgeseq_core.errors import MissingExtraError

Row = Mapping[str, float | None]


def require_matplotlib() -> None:
    """Raise MissingExtraError when what `draw` needs is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "install it with pip install 'edgeseq[pretrain]'")


def draw(rows: Sequence[Row], file: Path) -> None:
    """Loss (nats a token) on the left, shares right on the right, over steps; a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    loss, right = figure.subplots(1, 2)
    _line(loss, rows, "loss", "training loss, nats a token")
    _line(right, rows, "accuracy", "training tokens right")
    _line(right, rows, "dev_accuracy", "dev pairs right")
    right.set_ylim(0, 1)
    for axes in (loss, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _line(axes: object, rows: Sequence[Row], name: str, label: str) -> None:
    points = [(row["step"], row[name]) for row in rows if row[name] is not None]
    steps, values = zip(*points, strict=True) if points else ((), ())
    axes.plot(steps, values, marker=".", label=label)  # type: ignore[attr-defined]
