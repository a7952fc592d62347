"""Which base fits a device: looked up in a table that was measured, not estimated.

``sizes.json`` ships with the package; ``benchmarks/model/size.py`` measures it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from edgeseq_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Size:
    """One preset, whole or pruned, as measured."""

    preset: str
    ffn_share: float  # of the FFN columns, pruned
    layers: int  # of the encoder, pruned
    parameters: int
    megabytes: float  # of the int8 file, 10^6 bytes
    ms: float  # of one answer of 16 tokens to a source of 16 tokens, by the native engine


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """All that was measured, where, and when."""

    machine: str
    date: str
    sizes: tuple[Size, ...]

    def fitting(self, *, max_mb: float | None = None, max_ms: float | None = None) -> list[Size]:
        """Those within the limits (None: no limit), the largest first.

        Raises ConfigError when none is, naming the smallest and the fastest.
        """
        fit = [
            size
            for size in self.sizes
            if (max_mb is None or size.megabytes <= max_mb)
            and (max_ms is None or size.ms <= max_ms)
        ]
        if not fit:
            smallest = min(self.sizes, key=lambda size: size.megabytes)
            fastest = min(self.sizes, key=lambda size: size.ms)
            raise ConfigError(
                f"nothing fits: the smallest takes {smallest.megabytes:.2f} MB, the fastest "
                f"{fastest.ms:.2f} ms on {self.machine}; allow more"
            )
        return sorted(fit, key=lambda size: -size.parameters)


def measured_sizes() -> Sizes:
    """The table that ships with the package."""
    table = json.loads((files("edgeseq_core.model") / "sizes.json").read_text())
    sizes = tuple(Size(**row) for row in table["sizes"])
    return Sizes(machine=table["machine"], date=table["date"], sizes=sizes)
