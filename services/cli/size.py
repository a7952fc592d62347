"""``edgeseq size``: which base fits a device."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from .options import Format
from .output import emit, say, table


def size(
    *,
    max_mb: Annotated[
        float | None, Parameter(help="Megabytes that the int8 base may take.")
    ] = None,
    max_ms: Annotated[
        float | None, Parameter(help="Milliseconds that an answer of 16 tokens may take.")
    ] = None,
    common: Format = Format(),  # noqa: B008 - frozen
) -> None:
    """Name the presets, whole or pruned, that fit; measured on the machine it names, largest first."""
    from edgeseq_core.model.sizing import measured_sizes

    measured = measured_sizes()
    fitting = measured.fitting(max_mb=max_mb, max_ms=max_ms)
    if common.as_json:
        for one in fitting:
            emit(asdict(one) | {"machine": measured.machine, "date": measured.date})
        return
    table(
        ("preset", "FFN pruned", "layers pruned", "parameters", "MB", "ms"),
        (
            (
                one.preset,
                f"{one.ffn_share:.0%}",
                str(one.layers),
                f"{one.parameters:,}",
                f"{one.megabytes:.2f}",
                f"{one.ms:.2f}",
            )
            for one in fitting
        ),
    )
    say(
        f"measured on {measured.machine}, native engine, one thread, {measured.date}; "
        "another machine differs"
    )
    largest = fitting[0]
    hint = f"the largest that fits: edgeseq pretrain OUT --preset {largest.preset}"
    if largest.ffn_share or largest.layers:
        hint += f", then edgeseq prune SMALLER --base OUT --ffn-share {largest.ffn_share}"
        hint += f" --layers {largest.layers}" if largest.layers else ""
    say(hint)
