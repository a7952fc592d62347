"""What a teacher says of every target token, kept small: its k most likely symbols, and the rest.

A token costs ``4 k`` bytes (16-bit ids, 16-bit floats) instead of ``4 V``; all other symbols share one
bucket, so that a student still learns how much mass lies outside.

Shapes: B rows, T target tokens, V symbols.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

LEAST = 1e-6  # probability; the rest's logarithm stays finite


@dataclass(frozen=True)
class TopK:
    """The k most likely symbols ``[..., k]`` and their log-probabilities ``[..., k]``."""

    ids: Tensor
    log_probabilities: Tensor

    def to(self, device: torch.device) -> TopK:
        """The same on a device."""
        return TopK(self.ids.to(device), self.log_probabilities.to(device))

    def split(self, lengths: Sequence[int]) -> list[TopK]:
        """Pieces of so many rows each."""
        pieces = (torch.split(one, list(lengths)) for one in (self.ids, self.log_probabilities))
        return [TopK(*piece) for piece in zip(*pieces, strict=True)]


@dataclass(frozen=True)
class Teaching:
    """What is said of a batch's target tokens, ``[T, k]`` a pair, and how much its divergence counts."""

    said: Sequence[TopK | None]  # None: nothing is said of a pair
    weight: float  # beside the loss

    def packed(self) -> TopK:
        """All that is said, token after token, ``[N, k]``."""
        spoken = [said for said in self.said if said is not None]
        return TopK(
            torch.cat([said.ids for said in spoken]),
            torch.cat([said.log_probabilities for said in spoken]),
        )


def top_k(log_probabilities: Tensor, k: int) -> TopK:
    """The k largest of ``[..., V]``."""
    values, ids = log_probabilities.topk(k, -1)
    return TopK(ids, values)


def divergence(teacher: TopK, scores: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL divergence in nats ``[...]`` of a student's scores ``[..., V]`` from what a teacher said.

    Both are seen as k + 1 buckets: the teacher's symbols, and the rest.  With k = V it is the whole one.

    >>> said = top_k(torch.tensor([0.5, 0.25, 0.125, 0.125]).log(), 1)
    >>> even = torch.zeros(4)                  # the student: a quarter each, so 3 / 4 in the rest
    >>> round(float(divergence(said, even)), 4)      # 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4)
    0.1438
    """
    student = (scores / temperature).log_softmax(-1).gather(-1, teacher.ids)
    shares = teacher.log_probabilities.exp()
    said = (shares * (teacher.log_probabilities - student)).sum(-1)
    rest = (1 - shares.sum(-1)).clamp_min(0.0)
    others = (1 - student.exp().sum(-1)).clamp_min(LEAST)
    return said + torch.xlogy(rest, rest) - rest * others.log()


def pad_top_k(rows: Sequence[TopK]) -> TopK:
    """Rows ``[T_i, k]`` as one ``[B, longest, k]``; what fills them up is ignored by its target."""
    ids = torch.nn.utils.rnn.pad_sequence([row.ids for row in rows], batch_first=True)
    logs = [row.log_probabilities for row in rows]
    return TopK(ids, torch.nn.utils.rnn.pad_sequence(logs, batch_first=True))


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """One task's sources with the targets that a student reads, and what the teacher says of each token."""

    places: NDArray[np.int32]  # [N], of the task's sources: an answer that never ends is no lesson
    starts: NDArray[np.int64]  # [N + 1], where each target's tokens begin
    targets: NDArray[np.uint16]  # [tokens], each target ends with EOS
    ids: NDArray[np.uint16]  # [tokens, k]
    log_probabilities: NDArray[np.float16]  # [tokens, k], at the temperature
    temperature: float

    def of(self, row: int) -> TopK:
        """What the teacher said of one target, ``[T, k]``."""
        tokens = slice(self.starts[row], self.starts[row + 1])
        return TopK(
            torch.from_numpy(self.ids[tokens].astype(np.int64)),
            torch.from_numpy(self.log_probabilities[tokens].astype(np.float32)),
        )

    def target(self, row: int) -> list[int]:
        """Token ids of one target, without EOS."""
        ids: list[int] = self.targets[self.starts[row] : self.starts[row + 1] - 1].tolist()
        return ids

    def write(self, file: Path, identity: dict[str, Any]) -> None:
        """Write them, with what they were made from."""
        arrays = {name: value for name, value in vars(self).items() if name != "temperature"}
        header = json.dumps({"identity": identity, "temperature": self.temperature})
        file.write_bytes(save(arrays, metadata={"header": header}))

    @classmethod
    def read(cls, file: Path, identity: dict[str, Any]) -> Lessons | None:
        """Lessons that were made from the same, else None: they are made again."""
        try:
            data = file.read_bytes()
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["header"])
            if header["identity"] != json.loads(json.dumps(identity)):
                return None
            return cls(**load(data), temperature=header["temperature"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None
