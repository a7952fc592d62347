"""A base in memory: the frozen network with its dequantised weights, and its header."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.base_file import BaseHeader, StoredBase, read_base
from edgeseq_core.model.edgeformer import EdgeFormer


class Base:
    """A frozen EdgeFormer; what is trained on it and what serves share these very values.

    ``stored``: the file that it was read from, for engines that compute with its int8; None for a base that
    is being made.
    """

    def __init__(
        self, header: BaseHeader, model: EdgeFormer, stored: StoredBase | None = None
    ) -> None:
        self.header, self.model, self.stored = header, model, stored
        self.config, self.vocabulary, self.digest = header.config, header.vocabulary, header.digest

    @classmethod
    def load(cls, path: Path | None = None) -> Base:
        """The base in a file (None: the shipped one); raises SnapshotError when it is none."""
        stored, tensors = read_base(path)
        model = EdgeFormer(stored.header.config)
        parameters = dict(model.named_parameters())
        if parameters.keys() != tensors.keys():
            raise SnapshotError(
                f"the base's tensors do not fit its header: {path or 'shipped base'}"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(torch.from_numpy(tensors[name]))
        model.requires_grad_(False)
        model.eval()
        return cls(stored.header, model, stored)
