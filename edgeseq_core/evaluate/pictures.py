"""The pictures of a stream bench, as SVG to stand inside a page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from edgeseq_core.corpus.streams import Stream
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.methods.registry import METHODS
from edgeseq_core.evaluate.summary import Summary, prequential_curve
from edgeseq_core.model.curves import require_matplotlib

MAX_POINTS = 400  # of a curve


def prequential(cells: Sequence[Cell], stream: Stream) -> str:
    """Accuracy of the answers before learning, along the stream; one seed of each method."""

    def draw(axes: Any) -> None:
        for cell in cells:
            curve = prequential_curve(cell)
            every = max(1, len(curve) // MAX_POINTS)
            places = range(0, len(curve), every)
            axes.plot(places, [curve[at] for at in places], linewidth=1.2, **_look(cell.method))
        for start in list(accumulate(len(phase.train) for phase in stream.phases))[:-1]:
            axes.axvline(start, color="grey", linewidth=0.6, linestyle="--")
        axes.set(xlabel="pairs", ylabel="answered before learning, % (fading)", ylim=(0, 100))

    return _svg(f"prequential {stream.name}", draw)


def average(cells: Sequence[Cell], stream: Stream) -> str:
    """Mean accuracy on the phases so far, after each phase; one seed of each method."""

    def draw(axes: Any) -> None:
        names = [phase.name for phase in stream.phases]
        for cell in cells:
            means = [sum(row[: at + 1]) / (at + 1) for at, row in enumerate(cell.exact)]
            axes.plot(range(len(means)), means, marker=".", **_look(cell.method))
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axes.set(ylabel="right on the phases so far, %", ylim=(0, 100))

    return _svg(f"average {stream.name}", draw)


def cost_and_quality(rows: Sequence[Summary]) -> str:
    """Average accuracy over the CPU-seconds it took; up and to the left is better."""

    def draw(axes: Any) -> None:
        for row in rows:
            cost, quality = (
                row.values[name] for name in ("CPU-s / 1,000 pairs", "average accuracy, %")
            )
            axes.errorbar(
                cost.mean,
                quality.mean,
                yerr=0 if quality.half != quality.half else quality.half,
                marker="o",
                linestyle="",
                **_look(row.method),
            )
            axes.annotate(row.method, (cost.mean, quality.mean), (6, 4), textcoords="offset points")
        axes.set(xlabel="CPU-seconds of learning / 1,000 pairs", ylabel="average accuracy, %")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 100)

    return _svg(f"cost {rows[0].stream}", draw)


def _look(method: str) -> dict[str, str]:
    """A method has one colour in all pictures: ten strong ones, then the same ones light."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    at = list(METHODS).index(method)
    return {"label": method, "color": to_hex(colormaps["tab20"](2 * at % 20 + at // 10))}


def _svg(name: str, draw: Callable[[Any], None]) -> str:
    """A figure as an ``<svg>`` element; ``name`` makes its ids its own."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]
