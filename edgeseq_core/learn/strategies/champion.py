"""The snapshot that serves, as a strategy looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import SOURCE_ROWS, Calibration, Owned


@dataclass(frozen=True)
class Champion:
    """A snapshot's id, and its int8 bytes as numbers again."""

    snapshot_id: str
    calibration: Calibration

    @classmethod
    def of(cls, snapshot_id: str, payload: bytes, base: Base) -> Champion:
        """Raises SnapshotError for bytes that do not fit the base."""
        read = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
        return cls(snapshot_id, read)

    def beside(self, own: Calibration) -> Calibration | None:
        """With rows for all that ``own`` has rows for, so that both read a pair as the same tokens.

        What is added changes no output, and depends on nothing but the two.  None where the snapshot is not
        one of ``own``'s ancestors: its rows are of other symbols.
        """
        kept, before, now = self.calibration, self.calibration.owned, own.owned
        if not all(_begins(longer, shorter) for longer, shorter in zip(now, before, strict=True)):
            return None
        if SOURCE_ROWS not in own.tensors or kept.config != own.config:
            now = Owned(now.symbols, now.rows, before.source_symbols, before.source_rows)
        tensors = dict(kept.tensors)
        added, width = len(now.rows) - len(before.rows), kept.base.config.d_model
        tensors["rows"] = torch.cat([tensors["rows"], torch.zeros(added, width)])
        bias = tensors["other_bias"].expand(added)
        tensors["row_bias"] = torch.cat([tensors["row_bias"], bias])
        if new := len(now.source_rows) - len(before.source_rows):
            have = tensors.get(SOURCE_ROWS, torch.zeros(0, width))
            tensors[SOURCE_ROWS] = torch.cat([have, torch.zeros(new, width)])
        return Calibration(
            kept.base, kept.table.vocabulary, kept.config, tensors=tensors, owned=now
        )


def _begins(longer: Sequence[object], shorter: Sequence[object]) -> bool:
    return list(longer[: len(shorter)]) == list(shorter)
