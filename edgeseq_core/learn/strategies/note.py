"""What a task said of a pair when it learnt it, as the buffer keeps it: ``4 k`` bytes a token, and 3.

A note names symbols of the task's table, which only ever grows on a branch; notes of another branch are
not read (`replay.buffer.Move`).
"""

from __future__ import annotations

import struct

import numpy as np
import torch

from edgeseq_core.model.lessons import TopK

_HEADER = struct.Struct("<BH")  # k, tokens
MOST_ID = 0xFFFF


def pack(said: TopK) -> bytes:
    """16-bit ids and 16-bit log-probabilities ``[T, k]``; empty where an id is larger."""
    tokens, k = said.ids.shape
    if said.ids.max() > MOST_ID:
        return b""
    ids = said.ids.numpy().astype("<u2")
    logs = said.log_probabilities.numpy().astype("<f2")
    return _HEADER.pack(k, tokens) + ids.tobytes() + logs.tobytes()


def unpack(note: bytes, tokens: int) -> TopK | None:
    """What a note holds of a target of so many tokens; None for none, or one of other tokens."""
    if len(note) < _HEADER.size:
        return None
    k, found = _HEADER.unpack_from(note)
    if found != tokens or len(note) != _HEADER.size + 4 * k * tokens:
        return None
    ids = np.frombuffer(note, "<u2", k * tokens, _HEADER.size).reshape(tokens, k)
    logs = np.frombuffer(note, "<f2", k * tokens, _HEADER.size + ids.nbytes).reshape(tokens, k)
    return TopK(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(logs.astype(np.float32)))
